"""Open Inference Protocol V2 over gRPC, in the server's own event loop. Needs the extra ``grpc``."""

import os

# A replica's process is another program from its first moment on: gRPC has nothing to carry over into it, and
# with its support for forks on says so on stderr each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
