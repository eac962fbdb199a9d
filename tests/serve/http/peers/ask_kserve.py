"""kserve's clients ask a server: `ask_kserve.py HTTP_PORT GRPC_PORT`; prints what they were told as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

IMAGE = np.full((1, 4, 4, 1), 0.9, np.float32)


def request(*, binary):
    image = InferInput("image", [1, 4, 4, 1], "FP32")
    image.set_data_from_numpy(IMAGE, binary_data=binary)
    outputs = [RequestedOutput("score", {"binary_data": binary})]
    return InferRequest(model_name="chest", infer_inputs=[image], request_id="7", request_outputs=outputs)


async def rest(port):
    base = f"http://127.0.0.1:{port}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    told = {
        "live": await client.is_server_live(base),
        "ready": await client.is_server_ready(base),
        "model": await client.is_model_ready(base, "chest"),
    }
    for binary in (False, True):
        answer = await client.infer(base, request(binary=binary), model_name="chest")
        told["binary" if binary else "json"] = answer.outputs[0].as_numpy().ravel().tolist()
    await client.close()
    return told


async def grpc(port):
    client = InferenceGRPCClient(f"127.0.0.1:{port}")
    told = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model": await client.is_model_ready("chest"),
    }
    for raw in (False, True):
        answer = await client.infer(request(binary=raw))
        told["raw" if raw else "typed"] = answer.outputs[0].as_numpy().ravel().tolist()
    await client.close()
    return told


async def main(http_port, grpc_port):
    sys.stdout.write(json.dumps({"rest": await rest(http_port), "grpc": await grpc(grpc_port)}))


asyncio.run(main(*sys.argv[1:]))
