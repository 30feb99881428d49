import os

# gRPC handles fork() itself: it wakes threads in the child of whoever forks, which have ended such a child
# before its exec. Nothing here forks without one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
