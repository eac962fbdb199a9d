"""An ONNX file for MLServer, which has no runtime of its own for them; it runs in MLServer's environment.

As lean as one can be written: arrays are decoded and encoded by MLServer's own codec, and nothing else is done.
"""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Onnx(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        # as edgemed's Runner sets them
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        image = NumpyCodec.decode_input(payload.inputs[0])
        (scores,) = self.session.run(None, {"image": image})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
