"""Serves one model file over llama.cpp's OpenAI-compatible HTTP interface, until SIGTERM or SIGINT.

Runs with the folder of `install.py` on its path, so it imports nothing of this project.

    python server.py --model FILE --name NAME --port P
"""

import argparse
import os
import signal
import sys
import threading

from xllamacpp import CommonParams, CommonParamsSampling, Server  # type: ignore[import-not-found]  # not in this environment

NICENESS = 10
SLOTS = 4
SLOT_TOKENS = 3072
"""Context of one slot: a prompt of some 1,500 tokens, and the answer."""
MOST_THREADS = 4
ERRORS_ONLY = 1


def main() -> None:
    """Load the model, serve it, and end at once when told to."""
    arguments = _arguments()
    os.nice(NICENESS)  # before llama.cpp starts its threads, so that they yield to the platform as well
    settings = CommonParams()
    settings.model.path = arguments.model
    settings.model_alias = {arguments.name}
    settings.hostnames = ["127.0.0.1"]
    settings.port = arguments.port
    settings.offline = True
    _close_side_doors(settings)
    _bound_resources(settings)
    _set_sampling(settings.sampling)
    server = Server(settings)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    sys.stdout.write(f"{arguments.name} answers on {server.listening_address}\n")
    sys.stdout.flush()
    done.wait()
    os._exit(0)  # taking the server apart would wait until every answer is written


def _close_side_doors(settings: CommonParams) -> None:
    settings.ui = False
    settings.endpoint_slots = False
    settings.cors_origins = ""  # no page in a browser may read it
    settings.verbosity = ERRORS_ONLY


def _bound_resources(settings: CommonParams) -> None:
    """Keep it within 0.5 GB: the slots' context is all there is, and no prompt is kept beside it."""
    settings.n_parallel = SLOTS
    settings.n_ctx = SLOTS * SLOT_TOKENS
    settings.cache_ram_mib = 0
    settings.cache_idle_slots = False
    # One core stays free: its threads wait for each other spinning, and with one too many all of them are many times slower.
    cores = max(1, len(os.sched_getaffinity(0)) - 1)
    for threads in (settings.cpuparams, settings.cpuparams_batch):
        threads.n_threads = min(MOST_THREADS, cores)
        threads.poll = 0  # wait asleep


def _set_sampling(sampling: CommonParamsSampling) -> None:
    """Choose what a request does not say: without these a model this small repeats itself until its limit, or rambles."""
    sampling.penalty_repeat = 1.12
    sampling.penalty_last_n = 256
    sampling.min_p = 0.1
    sampling.top_k = 4


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
