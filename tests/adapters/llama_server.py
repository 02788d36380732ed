"""Stands for a user's llama-server: llama.cpp's own server, with llama-server's own options."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import xllamacpp

engine: Any = xllamacpp

if "--help" in sys.argv:
    sys.stdout.write("--fit [on|off]  whether to adjust unset arguments to fit in memory\n")
    sys.stdout.write("-c, --ctx-size N  size of the prompt context\n")
    sys.exit()
if "--version" in sys.argv:
    sys.stderr.write("version: 1 (test)\n")
    sys.exit()
given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
assert given["-np"] == "1"
assert given["--fit"] == "off"
assert "--api-key" not in given
parameters = engine.CommonParams()
parameters.model.path = given["-m"]
parameters.n_ctx = int(given["-c"])
parameters.n_parallel = 1
parameters.fit_params = False
parameters.hostnames = [given["--host"]]
parameters.port = int(given["--port"])
parameters.api_keys = [os.environ["LLAMA_API_KEY"]]
parameters.n_batch = parameters.n_ubatch = int(given.get("-b", "512"))
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = engine.Server(parameters)
while True:
    time.sleep(1)
