"""Names of the classes that Keras itself defines, so that a file can be judged without importing Keras.

Listed from Keras 3.15.1; a test compares them with the installed Keras. A class that is missing here is
treated as custom code, which errs on the safe side.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KERAS_CLASSES = _words(
    """
    AWQConfig AWQDTypePolicy AbsMaxQuantizer Activation ActivityRegularization AdaptiveAveragePooling1D
    AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
    AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNormalization
    Bidirectional CategoryEncoding CenterCrop Concatenate Constant Constraint
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D
    Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D CutMix
    DTypePolicy DTypePolicyMap Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense
    Embedding Equalization Flatten Float8QuantizationConfig FloatDTypePolicy Functional GPTQConfig
    GPTQDTypePolicy GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D
    GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlorotNormal GlorotUniform
    GroupNormalization GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing HeNormal HeUniform
    Identity IdentityInitializer Initializer InputLayer InputSpec Int4DTypePolicy Int4QuantizationConfig
    Int8QuantizationConfig IntegerLookup L1 L1L2 L2 LSTM LSTMCell Layer LayerNormalization LeakyReLU LecunNormal
    LecunUniform Masking MaxNorm MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum MelSpectrogram MinMaxNorm Minimum MixUp Model MultiHeadAttention Multiply NonNeg
    Normalization Ones Orthogonal OrthogonalInitializer OrthogonalRegularizer PReLU Permute Pipeline
    QuantizationConfig QuantizedDTypePolicy QuantizedFloat8DTypePolicy Quantizer RMSNormalization RNN
    RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomNormal RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomUniform RandomZoom ReLU Regularizer RepeatVector Rescaling Reshape
    Resizing ReversibleEmbedding STFT STFTInitializer STFTSpectrogram SeedGenerator SeparableConv1D
    SeparableConv2D SeparableConvolution1D SeparableConvolution2D Sequential SimpleRNN SimpleRNNCell Softmax
    Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells
    StringLookup Subtract TextVectorization TimeDistributed TruncatedNormal UnitNorm UnitNormalization
    UpSampling1D UpSampling2D UpSampling3D VarianceScaling Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D
    Zeros constant glorot_normal glorot_uniform he_normal he_uniform identity l1 l1_l2 l2 lecun_normal
    lecun_uniform max_norm min_max_norm non_neg ones orthogonal orthogonal_regularizer random_normal
    random_uniform stft truncated_normal unit_norm variance_scaling zeros
    """
)
"""Layers, models, initializers, regularizers, constraints, dtype policies, with their aliases."""

KERAS2_CLASSES = _words(
    """
    AddLoss AddMetric BatchNormalizationV1 BatchNormalizationV2 CuDNNGRU CuDNNLSTM GRUCellV1 GRUCellV2 GRUV1 GRUV2
    LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2 LocallyConnected1D LocallyConnected2D Policy RadialConstraint RandomHeight
    RandomWidth SyncBatchNormalization ThresholdedReLU radial_constraint
    """
)
"""Classes of Keras 2 (tf_keras 2.21) that Keras 3 lacks. Left out on purpose: wrappers of RNN cells and feature
columns, which carry functions or file names."""

KERAS_OPERATIONS = _words(
    """
    Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin Angle Any Append
    Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array
    ArraySplit AssociativeScan Average AveragePool BatchNorm BinaryCrossentropy Bincount BitwiseAnd
    BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist CTCDecode
    CTCLoss Cast CategoricalCrossentropy Cbrt Ceil Celu Cholesky CholeskyInverse Clip Concatenate Cond Conj
    Conjugate Conv ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh CountNonzero CropImages Cross
    Cumprod Cumsum Deg2rad DepthToSpace DepthwiseConv Det Diag Diagflat Diagonal Diff Digitize Divide
    DivideNoNan Dot DotProductAttention Dsplit Dstack Eig Eigh Einsum ElasticTransform Elu EmptyLike Equal Erf
    Erfc Erfinv Exp Exp2 ExpandDims Expm1 ExtractPatches ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud Floor
    FloorDivide Fmax Fmin Fmod Fold ForiLoop Full FullLike Function GaussianBlur Gcd Gelu Geomspace GetItem Glu
    Greater GreaterEqual HSVToRGB HardShrink HardSigmoid HardSilu HardTanh Heaviside Histogram Hsplit Hstack
    Hypot I0 IFFT2 IRFFT ISTFT Imag InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal
    JVP Kron LayerNorm Lcm Ldexp LeakyRelu LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 LogSigmoid
    LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Logsumexp Lstsq
    LuFactor Map MapCoordinates Matmul MatrixRank Max MaxPool Maximum Mean Median Meshgrid Min Minimum Mod
    Moments Moveaxis MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean
    Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero Norm
    Normalize NotEqual OneHot OnesLike Outer PSNR Pad PadImages Percentile PerspectiveTransform Pinv Polar Power
    Prod Ptp Qr Quantile RFFT RGBToGrayscale RGBToHSV RMSNorm Rad2deg Ravel Real Rearrange Reciprocal Relu Relu6
    Repeat Reshape Resize RightShift Roll Rot90 Round Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate Scan
    Scatter ScatterUpdate SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu
    SeparableConv Sigmoid Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate Slogdet SobelEdges SoftShrink
    Softmax Softplus Softsign Solve SolveTriangular Sort SpaceToDepth SparseCategoricalCrossentropy SparsePlus
    SparseSigmoid Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes
    Switch Take TakeAlongAxis Tan Tanh TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril
    Triu TrueDivide Trunc Unfold Unique UnravelIndex Unstack Vander Var Vdot VectorizedMap View ViewAsComplex
    ViewAsReal Vsplit Vstack Where WhileLoop ZerosLike
    """
)
"""Functions of `keras.ops` that stand in a functional model as nodes."""

KERAS_APPLICATION_CLASSES = {
    "CustomScaleLayer": "inception_resnet_v2",
    "LayerScale": "convnext",
    "StochasticDepth": "convnext",
}
"""Layers that `keras.applications` defines for itself, by the module of either Keras that holds them."""

CODE_CLASSES = {
    "Lambda": "a Lambda layer with Python bytecode",
    "__lambda__": "a pickled Python function",
    "TFSMLayer": "a TFSMLayer that loads another SavedModel",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "JaxLayer": "a JAX function",
    "FlaxLayer": "a Flax module",
}
"""Classes that carry or load code, with the words for it."""

TF_FUNCTIONS: dict[str, frozenset[str]] = {
    "": _words(
        """
        abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh batch_to_space bitcast boolean_mask
        broadcast_to cast clip_by_global_norm clip_by_norm clip_by_value complex concat convert_to_tensor cos cosh
        cumsum divide dynamic_partition dynamic_stitch einsum ensure_shape equal exp expand_dims
        extract_volume_patches eye fill floor floordiv gather gather_nd greater greater_equal identity identity_n less
        less_equal linspace log logical_and logical_not logical_or matmul maximum meshgrid minimum mod multiply
        negative norm not_equal one_hot ones ones_like pad pow range rank realdiv reduce_all reduce_any
        reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse
        reverse_sequence roll round saturate_cast scalar_mul scatter_nd searchsorted sequence_mask shape sigmoid sign
        sin sinh size slice sort space_to_batch split sqrt square squeeze stack stop_gradient strided_slice subtract
        tan tanh tensor_scatter_nd_add tensor_scatter_nd_update tensordot tile transpose truediv truncatediv
        truncatemod unstack where zeros zeros_like
        """
    ),
    "keras.activations": _words(
        """
        elu exponential gelu hard_sigmoid leaky_relu linear log_softmax mish relu relu6 selu sigmoid silu softmax
        softplus softsign swish tanh
        """
    ),
    "keras.backend": _words(
        """
        abs all any argmax argmin batch_dot batch_flatten batch_normalization bias_add cast cast_to_floatx clip
        concatenate conv1d conv2d conv2d_transpose conv3d cos cumprod cumsum depthwise_conv2d dot elu equal exp
        expand_dims flatten gather greater greater_equal hard_sigmoid int_shape l2_normalize less less_equal
        local_conv1d local_conv2d log max maximum mean min minimum not_equal one_hot ones_like permute_dimensions
        pool2d pool3d pow prod relu repeat repeat_elements reshape resize_images resize_volumes reverse round
        separable_conv2d shape sigmoid sign sin softmax softplus softsign spatial_2d_padding spatial_3d_padding sqrt
        square squeeze stack std stop_gradient sum switch tanh temporal_padding tile transpose var zeros_like
        """
    ),
    **dict.fromkeys(("math", "nn", "linalg", "image", "signal", "bitwise", "__operators__"), frozenset[str]()),
}
"""Functions of TensorFlow that a Keras 2 file may call, by module; an empty set stands for the whole module."""
