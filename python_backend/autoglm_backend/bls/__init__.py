"""The model `autoglm_phone`: plans a request, runs the encoders it needs, streams the decoder, and writes the text."""
