"""One `IExecutionContext`, driven as `edgemed.runtime.execution.Execution` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgemed.base.errors import EdgemedError, GpuError, InputError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.engine.bridge import Bridge, Native
from edgemed.engine.failure import gpu_error
from edgemed.engine.output import ALIGNMENT, DeviceCalls, GrownOutput, make_output_allocator
from edgemed.engine.recorder import ErrorBook
from edgemed.engine.tensors import shape_text, varying

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]


class TensorRtExecution:
    """Made by `LoadedEngine.execution`. Called by one thread at a time, with the CUDA context current.

    Args:
        bridge: of the engine.
        context: the `IExecutionContext`, whose error recorder writes into `book`.
        book: errors of this context.
        specs: what the engine takes and gives.
        profiles: least, usual and greatest shape of each varying input, for each optimization profile.
        device: what it needs of CUDA.
        graphs: whether the engine may be recorded at all, as far as it is known.
        closed: called once, when the context is gone.
    """

    def __init__(
        self,
        bridge: Bridge,
        context: Native,
        book: ErrorBook,
        specs: RunnerSpecs,
        profiles: Sequence[Profile],
        device: DeviceCalls,
        *,
        graphs: bool,
        closed: Callable[[TensorRtExecution], None],
    ) -> None:
        self._bridge = bridge
        self._context: Native = context
        self._book = book
        self._specs = specs
        self._all_profiles = profiles
        self._device = device
        self._graphs = graphs
        self._closed = closed
        self._logged = bridge.log.total
        self._active = int(context.active_optimization_profile)
        self._shapes: dict[str, Shape] = {}
        self._output_shapes: dict[str, Shape | None] = {}
        self._addresses: dict[str, int] = {}
        self._grown: dict[str, GrownOutput] = {}
        self._allocators: dict[str, Native] = {}

    @property
    def specs(self) -> RunnerSpecs:
        return self._specs

    @property
    def profiles(self) -> Profile:
        """Of each varying input: least shape, the first profile's usual one, and greatest shape, over all profiles."""
        names = self._all_profiles[0] if self._all_profiles else ()
        return {name: _span([profile[name] for profile in self._all_profiles]) for name in names}

    @property
    def greatest(self) -> list[dict[str, Shape]]:
        """Of each profile, the greatest shape of each varying input; an empty one where none varies."""
        return [{name: bounds[2] for name, bounds in ranges.items()} for ranges in self._all_profiles or ({},)]

    @property
    def capturable(self) -> bool:
        if not self._graphs or self._grown:  # memory cannot be asked for while a stream is recorded
            return False
        if self._bridge.has("IExecutionContext.is_stream_capturable"):
            return bool(self._context.is_stream_capturable(self._device.stream))
        return True

    def start(self) -> None:
        """Choose the usual shapes of the first profile, or what is fixed: output shapes are known from here on.

        Raises:
            GpuError: TensorRT refuses them, or has no profile for this context.
        """
        if self._device.aux_streams:
            self._context.set_aux_streams(list(self._device.aux_streams))
        if not self._all_profiles:
            self._settle_outputs()
            return
        if self._active < 0:
            raise GpuError(
                f"{self._bridge.flavour} {self._bridge.version} gives each context an optimization profile of its own, "
                "and this engine has no other.",
                "Build the engine again, so that contexts share it: edgemed build NAME.edgemed --force",
            )
        self.set_input_shapes({name: usual for name, (_, usual, _) in self._all_profiles[self._active].items()})

    def set_input_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Choose the shapes of the next `enqueue`; an input that is not named keeps its own.

        Nothing is asked of TensorRT where nothing changes. A change of profile waits for the device.

        Raises:
            InputError: an unknown input, or shapes that no one profile takes.
            GpuError: TensorRT refuses them.
        """
        self._require_open()
        wanted = {**self._shapes, **self._varying(shapes)}
        if wanted == self._shapes:
            return
        profile = self._profile_for(wanted)
        if profile is None:
            raise self._outside(wanted)
        before, self._shapes = self._shapes, {}  # should TensorRT refuse, all are set anew the next time
        if profile != self._active:
            self._switch(profile)
            before = {}
        for name, shape in wanted.items():
            if before.get(name) != shape:
                self._must(self._context.set_input_shape(name, shape), f"take {shape_text(shape)} for input {name}")
        self._settle_outputs()
        self._shapes = wanted

    def output_shape(self, name: str) -> Shape | None:
        return self._output_shapes[name]

    def bind(self, name: str, address: int) -> None:
        """Tell the device address of an input or output; it holds for every `enqueue` until bound anew.

        Raises:
            ValueError: not aligned to 256 bytes, which TensorRT takes for granted.
            GpuError: TensorRT refuses it.
        """
        if self._addresses.get(name) == address:
            return
        if address % ALIGNMENT:
            raise ValueError(f"the address of {name} is not a multiple of {ALIGNMENT}")
        self._require_open()
        self._addresses.pop(name, None)
        self._must(self._context.set_tensor_address(name, address), f"bind {name}")
        self._addresses[name] = address

    def grown(self, name: str) -> tuple[int, Shape]:
        """Address and shape of a data-dependent output after an execution has ended; the context owns the memory.

        Raises:
            GpuError: TensorRT has not told the shape, as after an execution that failed.
        """
        output = self._grown[name]
        if output.shape is None or not output.address:
            raise GpuError(f"TensorRT told no shape for output {name}.", "Run again with --debug for its full log.")
        return output.address, output.shape

    def signal_input_consumed(self, event: int) -> None:
        self._require_open()
        self._must(self._context.set_input_consumed_event(event), "signal that its inputs were read")

    def enqueue(self, stream: int) -> None:
        """Put one execution on a stream and return at once.

        Raises:
            GpuError: refused, or an earlier execution went wrong. Part of the work may be on the stream all the same:
                wait for the stream before memory is used again.
        """
        self._require_open()
        done = self._context.execute_async_v3(stream)
        # errors that come late are in the book although this call did what it was asked
        if not done or self._book:
            raise self._enqueue_error()

    def check(self) -> None:
        """Called when an execution has ended: errors that come late are in the book, and its answer is not believed.

        Raises:
            GpuError: TensorRT has reported one. Where two slots share the context, it may be the other one's.
        """
        if self._book:
            raise self._failure("run the engine")

    def close(self) -> None:
        """Free the context, then the memory of its outputs. Doing it twice does no harm."""
        if self._context is None:
            return
        self._context = None
        self._allocators = {}
        for output in self._grown.values():
            output.release()
        self._closed(self)

    # ---- shapes

    def _varying(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The given shapes of inputs that vary; those that do not must be what they are."""
        specs = {spec.name: spec for spec in self._specs.inputs}
        for name, shape in shapes.items():
            if name not in specs:
                raise InputError(f"The engine has no input {name}.", f"It takes {', '.join(specs)}.")
            if not specs[name].admits(specs[name].dtype, shape):
                raise InputError(f"Input {specs[name]} got {shape_text(shape)}.", "Give what the model takes.")
        return {name: tuple(shape) for name, shape in shapes.items() if None in specs[name].shape}

    def _profile_for(self, shapes: Mapping[str, Shape]) -> int | None:
        """The active profile where it takes the shapes, else the first that does."""
        order = sorted(range(len(self._all_profiles)), key=lambda index: index != self._active)
        return next((index for index in order if _takes(self._all_profiles[index], shapes)), None)

    def _outside(self, shapes: Mapping[str, Shape]) -> InputError:
        ranges = self.profiles
        outer = {name: bounds for name, bounds in ranges.items() if not _within(bounds, shapes[name])}
        name = next(iter(outer or ranges))
        least, _, greatest = ranges[name]
        several = "" if outer else ", not in this combination"
        return InputError(
            f"Input {name} got {shape_text(shapes[name])}; the engine takes {shape_text(least)} to "
            f"{shape_text(greatest)}{several}.",
            "Give a batch in that range, or build the model with another: --dynamic-batch MIN:OPT:MAX",
        )

    def _switch(self, profile: int) -> None:
        self._device.synchronize()  # it copies into what an execution under way may read
        done = self._context.set_optimization_profile_async(profile, self._device.stream)
        self._must(done, f"switch to optimization profile {profile}")
        self._device.synchronize()  # and must have copied before any stream runs the engine
        self._active = profile

    def _settle_outputs(self) -> None:
        """Ask for the shapes of the outputs; what only the data decides gets an allocator."""
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:  # the bindings' way to say that shapes contradict each other
            raise self._failure("infer the shapes of its outputs") from error
        if missing or self._book:
            raise self._failure(f"infer the shapes of its outputs ({', '.join(missing)})")
        for spec in self._specs.outputs:
            shape = varying(self._context.get_tensor_shape(spec.name))
            known = tuple(size for size in shape if size is not None)
            self._output_shapes[spec.name] = known if len(known) == len(shape) else None
            self._set_allocator(spec, wanted=len(known) < len(shape))

    def _set_allocator(self, spec: TensorSpec, *, wanted: bool) -> None:
        if wanted == (spec.name in self._grown):
            return
        if not wanted:
            self._must(self._context.set_output_allocator(spec.name, None), f"unset the allocator of {spec.name}")
            self._allocators.pop(spec.name)
            self._grown.pop(spec.name).release()
            return
        output = GrownOutput(self._device)
        allocator = make_output_allocator(self._bridge.trt, output)
        self._must(self._context.set_output_allocator(spec.name, allocator), f"set an allocator for {spec.name}")
        self._grown[spec.name], self._allocators[spec.name] = output, allocator

    # ---- errors

    def _require_open(self) -> None:
        if self._context is None:
            raise RuntimeError("the execution was closed")

    def _must(self, done: bool, doing: str) -> None:
        if not done or self._book:
            raise self._failure(doing)

    def _enqueue_error(self) -> EdgemedError:
        starved = [error for output in self._grown.values() if (error := output.take_error()) is not None]
        failure = self._failure("run the engine")
        return starved[0] if starved and not failure.sticky else failure

    def _failure(self, doing: str) -> GpuError:
        reported = self._book.take()
        # an object with a recorder tells it everything; the log is asked only where the recorder is empty
        messages = [report.message for report in reported] or self._bridge.log.since(self._logged)
        self._logged = self._bridge.log.total
        failure = gpu_error(self._bridge, doing, [report.code for report in reported], messages)
        if failure.sticky:
            self._device.lost(failure)
        return failure


def _takes(ranges: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(_within(bounds, shapes[name]) for name, bounds in ranges.items())


def _within(bounds: tuple[Shape, Shape, Shape], shape: Shape) -> bool:
    least, _, greatest = bounds
    return all(low <= size <= high for low, size, high in zip(least, shape, greatest, strict=True))


def _span(bounds: Sequence[tuple[Shape, Shape, Shape]]) -> tuple[Shape, Shape, Shape]:
    least, usual, greatest = zip(*bounds, strict=True)
    low = tuple(min(sizes) for sizes in zip(*least, strict=True))
    return low, usual[0], tuple(max(sizes) for sizes in zip(*greatest, strict=True))
