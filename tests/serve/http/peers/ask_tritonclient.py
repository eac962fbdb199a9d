"""tritonclient asks a server: `ask_tritonclient.py HTTP_PORT GRPC_PORT`; prints what it was told as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

IMAGE = np.full((1, 4, 4, 1), 0.9, np.float32)


def ask(module, client, **how):
    """Everything that both transports have."""
    image = module.InferInput("image", [1, 4, 4, 1], "FP32")
    image.set_data_from_numpy(IMAGE, **how.get("input", {}))
    wanted = [module.InferRequestedOutput("score", **how.get("output", {}))]
    result = client.infer("chest", [image], outputs=wanted, request_id="7", timeout=20_000_000, priority=1)
    told = result.get_response()
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready("chest"),
        "version": client.is_model_ready("chest", "1"),
        "score": result.as_numpy("score").ravel().tolist(),
        "id": told["id"] if isinstance(told, dict) else told.id,
    }


def main(http_port, grpc_port):
    told = {}
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{http_port}") as client:
        for binary in (False, True):
            how = {"input": {"binary_data": binary}, "output": {"binary_data": binary}}
            told["binary" if binary else "json"] = ask(tritonclient.http, client, **how)
        told["metadata"] = client.get_server_metadata()
        told["inputs"] = client.get_model_metadata("chest")["inputs"]
        told["config"] = client.get_model_config("chest")["name"]
        told["stats"] = client.get_inference_statistics("chest")["model_stats"][0]["name"]
        told["index"] = client.get_model_repository_index()
        try:
            client.load_model("chest")
        except tritonclient.http.InferenceServerException as error:
            told["load"] = error.message()
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        told["grpc"] = ask(tritonclient.grpc, client)
        told["grpc_inputs"] = client.get_model_metadata("chest", as_json=True)["inputs"]
        try:
            client.is_model_ready("other")
        except tritonclient.grpc.InferenceServerException as error:
            told["missing"] = error.status()
    sys.stdout.write(json.dumps(told))


main(*sys.argv[1:])
