"""An S3 server in memory, for as long as its standard input is open.

Prints its port. Then reads a JSON object a line, {"bucket": name, "keys": [key, ...]}: makes the bucket, and objects whose
content is their key; with "dir": path also the files below that directory, as "prefix": text and their path. Answers with
an empty line.
"""

import json
import sys
from pathlib import Path

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
for line in sys.stdin:
    order = json.loads(line)
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    if order["bucket"] not in backend.buckets:
        backend.create_bucket(order["bucket"], "us-east-1")
    for key in order["keys"]:
        backend.put_object(order["bucket"], key, b"" if key.endswith("/") else key.encode())
    for path in Path(order["dir"]).rglob("*") if "dir" in order else []:
        if path.is_file():
            backend.put_object(order["bucket"], order["prefix"] + str(path.relative_to(order["dir"])), path.read_bytes())
    print(flush=True)
