import sys

from autoglm_backend.launcher.cli import main

sys.exit(main(sys.argv[1:]))
