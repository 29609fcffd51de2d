"""What others serve with, one script each: ``python with_NAME.py MODEL PORT`` in an environment of its own.

A script's head says how to install it (PEP 723), and under ``[tool.edgeloop]`` what it is called, in which protocol it
is asked (`benchmarks.kit.requests.PROTOCOLS`: the fastest over HTTP that was found for it), and how it is set. Scripts
import nothing of this project, since it is not there where they run.
"""
