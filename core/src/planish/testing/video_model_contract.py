"""VideoModelContract: the contract of :class:`planish.interfaces.VideoModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from planish.errors import DataError, UnsupportedError
from planish.interfaces.video_model import Condition, Video, VideoRequest
from planish.testing.clause import not_claimed, refusal, require
from planish.testing.comparison import clone_state
from planish.testing.plugin_contract import PluginContract


class VideoModelContract(PluginContract):
    """The whole battery for a video model::

    class TestDemo(VideoModelContract):
        plugin = Demo

        def make_batch(self):
            return {"frames": torch.rand(2, 4, 32, 32, 3)}
    """

    kind: ClassVar[str] = "video_model"

    trains: ClassVar[bool] = True
    """Whether ``loss`` is defined; False for a training-free method, whose ``loss`` must refuse."""

    size: ClassVar[tuple[int, int, int]] = (4, 32, 48)
    """Frames, height and width of the suite's videos; height and width unequal, so that swapping them shows."""

    steps: ClassVar[int] = 2
    """Denoising steps of the suite's requests."""

    def make_plugin(self, **options: Any) -> Any:
        """Return the plugin; the same weights on each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(10)
            return super().make_plugin(**options)

    def make_condition(self, condition: Condition) -> Any:
        """Return a value for one field of a request, fit for the suite's size; the same on each call."""
        frames, height, width = self.size
        generator = torch.Generator().manual_seed(90)
        image = torch.randint(256, (height, width, 3), generator=generator).to(torch.uint8)
        match condition:
            case Condition.SOURCE_VIDEO:
                drawn = torch.randint(256, (frames, height, width, 3), generator=generator)
                return Video(drawn.to(torch.uint8), fps=8.0)
            case Condition.MASK:
                mask = torch.zeros(frames, height, width, dtype=torch.bool)
                mask[:, : height // 2] = True
                return mask
            case Condition.FIRST_FRAME | Condition.PORTRAIT:
                return image
            case Condition.AUDIO:
                return (torch.rand(1, 16000 * frames // 8, generator=generator) * 2 - 1) * 0.1
            case Condition.CAMERA_PATH:
                path = torch.eye(4).repeat(frames, 1, 1)
                path[:, 0, 3] = torch.linspace(0, 0.5, frames)
                return path
            case _:
                return f"a hand opens a drawer ({condition.value})"

    def make_request(self, **changes: Any) -> VideoRequest:
        """Return a request that gives every required condition, with ``changes`` to its fields."""
        frames, height, width = self.size
        fields: dict[str, Any] = {c.value: self.make_condition(c) for c in self.plugin.requires}
        fields |= {"num_frames": frames, "height": height, "width": width, "steps": self.steps}
        if Condition.AUDIO in self.plugin.requires:
            fields["sample_rate"] = 16000
        return VideoRequest(**(fields | changes))

    def make_batch(self) -> Mapping[str, Any]:
        """Return a training batch for ``loss``."""
        require(False, "override make_batch() with what loss() takes, or set trains = False")
        return {}

    # ---- clauses on conditions

    def test_conditions_are_declared(self) -> None:
        """``requires`` and ``accepts`` are frozen sets of Condition without overlap."""
        for name in ("requires", "accepts"):
            value = getattr(self.plugin, name, None)
            require(
                isinstance(value, frozenset) and all(isinstance(c, Condition) for c in value),
                f"{self.plugin.__name__}.{name} is {value!r}; expected a frozenset of planish.interfaces.Condition",
            )
        both = sorted(c.value for c in self.plugin.requires & self.plugin.accepts)
        require(not both, f"{both} are in requires and in accepts; a required condition is used anyway")

    def test_missing_condition_is_refused(self) -> None:
        """``generate`` refuses a request without a required condition, by name, before any work."""
        for condition in sorted(self.plugin.requires):
            with refusal(DataError, condition.value, when=f"the request lacks {condition.value}"):
                self.make_plugin().generate(self.make_request(**{condition.value: None}))

    def test_unusable_condition_is_refused(self) -> None:
        """``generate`` refuses a condition that it would ignore, by name."""
        for condition in sorted(set(Condition) - self.plugin.requires - self.plugin.accepts):
            given = {condition.value: self.make_condition(condition)}
            with refusal(DataError, condition.value, when=f"the request gives {condition.value}, which is not used"):
                self.make_plugin().generate(self.make_request(**given))

    def test_accepted_conditions_are_used(self) -> None:
        """Each condition in ``accepts`` may be given, and changes the video."""
        plugin = self.make_plugin()
        without = plugin.generate(self.make_request()).frames
        for condition in sorted(self.plugin.accepts):
            given = {condition.value: self.make_condition(condition)}
            if condition is Condition.AUDIO:
                given["sample_rate"] = 16000
            frames = plugin.generate(self.make_request(**given)).frames
            require(
                not torch.equal(frames, without),
                f"accepts lists {condition.value}, but giving it does not change the video; use it or leave it out",
            )

    def test_wrong_size_is_refused(self) -> None:
        """``generate`` refuses a request for no frames, no pixels or no steps, naming the field."""
        for name in ("num_frames", "height", "width", "steps"):
            with refusal(DataError, name, when=f"the request has {name} = 0"):
                self.make_plugin().generate(self.make_request(**{name: 0}))

    # ---- clauses on generation

    def test_video_is_as_requested(self) -> None:
        """The video has the requested frames, height, width and rate."""
        frames, height, width = self.size
        video = self.make_plugin().generate(self.make_request(fps=6.0))
        require(isinstance(video, Video), f"generate() returned a {type(video).__name__}; expected a Video")
        require(
            list(video.frames.shape) == [frames, height, width, 3],
            f"the video is {list(video.frames.shape)}; requested was {[frames, height, width, 3]}",
        )
        require(video.fps == 6.0, f"the video has {video.fps} frames per second; requested were 6.0")

    def test_seed_decides(self) -> None:
        """The same request gives the same video, whatever the global random state."""
        plugin, request = self.make_plugin(), self.make_request(seed=7)
        videos = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                videos.append(plugin.generate(request).frames)
        require(
            torch.equal(videos[0], videos[1]),
            "the same request gave two videos; draw from a torch.Generator seeded with request.seed",
        )

    def test_global_random_state_is_left_alone(self) -> None:
        """``generate`` neither seeds nor draws from torch's global generator."""
        plugin, request = self.make_plugin(), self.make_request()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(71)
            torch.rand(1)  # a state that no seeding alone gives
            before = torch.get_rng_state()
            plugin.generate(request)
            after = torch.get_rng_state()
        require(
            torch.equal(after, before),
            "generate() changed torch's global random state; use a torch.Generator of its own",
        )

    def test_request_is_left_alone(self) -> None:
        """``generate`` changes no tensor of the request."""
        usable = self.plugin.requires | self.plugin.accepts
        given = {c.value: self.make_condition(c) for c in usable}
        request = self.make_request(**given, sample_rate=16000 if Condition.AUDIO in usable else None)
        before = {name: tensor.clone() for name, tensor in _tensors(request).items()}
        self.make_plugin().generate(request)
        for name, tensor in _tensors(request).items():
            require(torch.equal(tensor, before[name]), f"generate() changed {name} of the request; copy it first")

    def test_progress_is_reported(self) -> None:
        """``progress(done, total, what)`` is called; ``done`` rises to ``total`` and never falls."""
        calls: list[tuple[int, int, str]] = []
        self.make_plugin().generate(self.make_request(), lambda *call: calls.append(call))
        require(calls, "generate() never called progress(done, total, what)")
        done = [call[0] for call in calls]
        require(done == sorted(done), f"generate() reported progress that falls: {done}")
        last, total, _ = calls[-1]
        require(last == total, f"generate() ended with progress {last} of {total}; report the end")

    # ---- clauses on networks and training

    def test_modules_are_the_networks(self) -> None:
        """``modules`` names the networks, the same objects on each call: transforms and optimizers change them."""
        plugin = self.make_plugin()
        first, second = plugin.modules(), plugin.modules()
        require(
            isinstance(first, Mapping) and all(isinstance(m, nn.Module) for m in first.values()),
            f"modules() returned {first!r}; expected a mapping of names to nn.Module",
        )
        require(first, "modules() is empty; name the networks that the video depends on")
        moved = [name for name in first if second.get(name) is not first[name]]
        require(not moved, f"modules() returned other objects for {moved} on the second call; keep the networks")

    def test_modules_carry_the_model(self) -> None:
        """State dicts of ``modules``, loaded into another instance, bring the same video."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            other = self.construct(self.options)
        plugin, request = self.make_plugin(), self.make_request()
        for name, module in plugin.modules().items():
            other.modules()[name].load_state_dict(clone_state(module.state_dict()))
        require(
            torch.equal(other.generate(request).frames, plugin.generate(request).frames),
            "another instance with the same state dicts gives another video; hold all weights in modules()",
        )

    def test_loss_is_finite_and_differentiable(self) -> None:
        """``loss`` is a finite scalar with a gradient in a parameter of ``modules``; or UnsupportedError is raised."""
        plugin = self.make_plugin()
        if not self.trains:
            with refusal(UnsupportedError, when="loss() of a training-free method is called"):
                plugin.loss({})
            return
        value = plugin.loss(self.make_batch())
        require(
            isinstance(value, Tensor) and value.ndim == 0 and math.isfinite(value.item()),
            f"loss() returned {value!r}; expected a finite scalar tensor",
        )
        require(value.requires_grad, "the loss is cut off from the graph of the networks")
        parameters = _trainable(plugin.modules())
        grads = torch.autograd.grad(value, parameters, allow_unused=True)
        reached = [g for g in grads if g is not None and g.any()]
        require(reached, "the loss has no gradient in any parameter of modules()")
        require(all(torch.isfinite(g).all() for g in reached), "the loss has infinite or NaN gradients")

    def test_training_lowers_the_loss(self) -> None:
        """A few steps on one batch lower its mean loss."""
        if not self.trains:
            not_claimed("trains is False")
        plugin, batch = self.make_plugin(), self.make_batch()
        parameters = _trainable(plugin.modules())
        optimizer = torch.optim.Adam(parameters, lr=3e-3)
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(30)
            for _ in range(30):
                optimizer.zero_grad()
                value = plugin.loss(batch)
                value.backward()
                optimizer.step()
                losses.append(value.item())
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        require(last < first, f"thirty steps on one batch took the loss from {first:.4f} to {last:.4f}")


def _trainable(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    found = {id(p): p for module in modules.values() for p in module.parameters() if p.requires_grad}
    return list(found.values())


def _tensors(request: VideoRequest) -> dict[str, Tensor]:
    found = {name: value for name, value in vars(request).items() if isinstance(value, Tensor)}
    if request.source_video is not None:
        found["source_video"] = request.source_video.frames
    return found
