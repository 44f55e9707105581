"""Reads a stream of JSON lines from stdin with jsonlines and prints it as one JSON array."""

import json
import sys

import jsonlines

json.dump(list(jsonlines.Reader(sys.stdin)), sys.stdout)
