import autoglm_site

autoglm_site.activate()

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils

import autoglm_protocol


class TritonPythonModel:
    """Answers with what a model sees: its parameters, the packages it imports, its environment."""

    def initialize(self, args):
        self.parameters = {
            key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        print("[DYNAMIC GRAPH] echo is loaded")
        print("a line that only the log holds")

    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()[0].decode()
            if text == "die":
                os._exit(3)
            print(f"[DYNAMIC GRAPH] echo of {text}")
            seen = {
                "parameters": self.parameters,
                "protocol": autoglm_protocol.__file__,
                "omp_num_threads": os.environ["OMP_NUM_THREADS"],
            }
            tensor = pb_utils.Tensor("SEEN", np.array([json.dumps(seen)], dtype=object))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
