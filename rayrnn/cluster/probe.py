"""One short question to an address: is there a Ray, of our version, that takes our token?"""

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from rayrnn.errors import ClusterError

#: seconds to wait for an answer
PATIENCE = 5.0


def probe(address: str, origin: str) -> None:
    """Return when the Ray at `address` (host:port) can be worked with.

    Asked here, a wrong address or token is known in seconds; Ray's own client tries for minutes.

    Args:
        origin: where the address came from, for the message: `--address`, `RAY_ADDRESS`, `rayrnn up`.

    Raises:
        ClusterError: nobody answers, it is no Ray, its version differs, or it does not take the token.
    """
    with init_grpc_channel(address) as channel:
        try:
            answer = NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=PATIENCE)
        except grpc.RpcError as error:
            raise ClusterError(_explain(error, address, origin)) from None
    if answer.ray_version != ray.__version__:
        raise ClusterError(
            f"the cluster at {address} ({origin}) runs Ray {answer.ray_version}, here is Ray {ray.__version__}: "
            "install the same version on both sides"
        )


def _explain(error: grpc.RpcError, address: str, origin: str) -> str:
    """What a gRPC status means to the user."""
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return (
            f"the cluster at {address} ({origin}) does not take this token: copy the cluster's ~/.ray/auth_token "
            "to this machine (mode 0600), or set RAY_AUTH_TOKEN_PATH to where it is"
        )
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return f"what answers at {address} ({origin}) is not the Ray that this rayrnn works with, Ray {ray.__version__}"
    # gRPC's sentence ends with what the system said
    reason = (error.details() or error.code().name).rpartition(": ")[2].rstrip("]")
    return (
        f"no Ray answers at {address} ({origin}): {reason}; start one with `rayrnn up`, or give the right host:port "
        "(Ray's own port, 6379 where none was chosen)"
    )
