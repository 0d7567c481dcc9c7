"""Open Inference Protocol V2 over gRPC, in the server's own event loop. Needs the extra ``grpc``."""
