"""A map of hosts for clients that know only the public ones: a proxy on this machine that ends their TLS.

A client is given `HTTPS_PROXY` and a bundle of certificates, and its own default URLs then lead to a
server on loopback. Every host that is not in the map is refused and kept in `strange`. Needs `openssl`.
"""

import http.client
import pathlib
import re
import socket
import ssl
import subprocess
import threading


# The public host of the storage, which the server names itself.
STORAGE = "storage.example.org"


def certificates(directory, hosts):
    """Makes `ca.pem`, and `leaf.pem` with `leaf.key` for the hosts."""
    directory = pathlib.Path(directory)
    names = ",".join(f"DNS:{host}" for host in hosts)
    (directory / "leaf.ext").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        "req -new -newkey rsa:2048 -nodes -subj /CN=test -keyout leaf.key -out leaf.csr",
        "x509 -req -days 2 -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext -out leaf.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


class HostMap:
    """The proxy. `hosts` maps a public host to an `http://` URL of loopback."""

    def __init__(self, directory, hosts):
        self.hosts = hosts
        self.strange = []
        self.heard = []
        certificates(directory, [*hosts, STORAGE])
        self.bundle = str(pathlib.Path(directory, "ca.pem").resolve())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pathlib.Path(directory, "leaf.pem"), pathlib.Path(directory, "leaf.key"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def environment(self):
        """What a client needs to be led here: proxy and certificates, in every spelling."""
        proxies = {name: self.url for name in ("HTTPS_PROXY", "https_proxy")}
        without = {name: "127.0.0.1,localhost" for name in ("NO_PROXY", "no_proxy")}
        bundles = dict.fromkeys(["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"], self.bundle)
        return proxies | without | bundles

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection:
                head = self.head(connection)
                method, target = head.split(b"\r\n")[0].decode().split(" ")[:2]
                host = target.rsplit(":", 1)[0]
                if method != "CONNECT" or host not in self.hosts:
                    self.strange.append(target)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                    return
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with self.context.wrap_socket(connection, server_side=True) as stream:
                    while self.pass_on(stream, host):
                        pass
        except (OSError, ValueError):
            # The client has gone.
            pass

    @staticmethod
    def head(connection):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                raise OSError("closed")
            head += byte
        return head

    def pass_on(self, stream, host):
        """Carries one request to the server behind `host`, and its answer back."""
        lines = self.head(stream).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        length = int({name.lower(): value for name, value in headers.items()}.get("content-length", 0))
        body = b""
        while len(body) < length:
            body += stream.recv(length - len(body))
        self.heard.append((host, method, path))
        server = http.client.HTTPConnection(self.hosts[host].removeprefix("http://"), timeout=60)
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
        server.request(method, path, body=body or None, headers=kept)
        answer = server.getresponse()
        content = self.public(answer.read())
        head = [f"HTTP/1.1 {answer.status} {answer.reason}", f"content-length: {len(content)}"]
        skipped = ("content-length", "connection", "transfer-encoding")
        head += [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in skipped]
        stream.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + content)
        return True

    def public(self, content):
        """Addresses at the storage on loopback have a public host, too."""
        found = re.search(rb"http://127\.0\.0\.1:\d+(?=/wandb/)", content)
        if not found:
            return content
        self.hosts[STORAGE] = found[0].decode()
        return content.replace(found[0], f"https://{STORAGE}".encode())
