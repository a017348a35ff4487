"""Error-state Kalman filter over a clip, and the Rauch-Tung-Striebel smoother that goes back over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from planish_egovid.kinematics.fusion.measurement import Linearised, Measurement
from planish_egovid.kinematics.fusion.propagation import ImuNoise, propagate
from planish_egovid.kinematics.fusion.state import CLONING, SIZE, NavigationState
from planish_egovid.kinematics.imu.stream import ImuStream

Array = NDArray[np.float64]

GATE = 0.9999
"""Share of right measurements that pass the gate."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """A time at which the state is wanted.

    Attributes:
        time_s: Seconds, on the recording's clock.
        measurements: What the picture says then; relative ones refer to the last epoch that was an anchor.
        is_anchor: Whether relative measurements that follow refer to this epoch.
    """

    time_s: float
    measurements: Sequence[Measurement] = ()
    is_anchor: bool = False


@dataclass(frozen=True, eq=False)
class Estimate:
    """States over time.

    Attributes:
        times_s: float64 [F].
        filtered: F states, each from what came before it.
        filtered_covariance: float64 [F, 24, 24].
        smoothed: F states, each from everything.
        smoothed_covariance: float64 [F, 24, 24].
        rejected: Measurements that did not pass the gate.
        used: Measurements that did.
    """

    times_s: Array
    filtered: Sequence[NavigationState]
    filtered_covariance: Array
    smoothed: Sequence[NavigationState]
    smoothed_covariance: Array
    rejected: int
    used: int


@dataclass(frozen=True, eq=False)
class _Stop:
    predicted: NavigationState
    predicted_covariance: Array
    transition: Array
    state: NavigationState
    covariance: Array


def estimate_states(
    initial: NavigationState,
    covariance: Array,
    imu: ImuStream,
    epochs: Sequence[Epoch],
    noise: ImuNoise | None = None,
    *,
    rounds: int = 1,
) -> Estimate:
    """Filter and smooth a clip.

    Further rounds linearise the measurements around the smoothed states of the round before (the iterated smoother of
    Bell 1994), which is Gauss-Newton on the whole clip. A scale needs them: a filter that multiplies it by a position
    that it has not settled yet grows too sure of it.

    Args:
        initial: State at the first epoch.
        covariance: Of its error, [24, 24].
        imu: The recording, in the axes that the measurements take for the sensor's.
        epochs: Rising in time, within the recording.
        noise: Of the sensor.
        rounds: How often to go over the clip.
    """
    noise = noise or ImuNoise()
    around: Sequence[NavigationState] | None = None
    for _ in range(rounds):
        stops, rejected, used = _filter(initial, covariance, imu, epochs, noise, around)
        around, smoothed_covariance = _smooth(stops)
    assert around is not None
    return Estimate(
        np.array([epoch.time_s for epoch in epochs]),
        [stop.state for stop in stops],
        np.stack([stop.covariance for stop in stops]),
        around,
        smoothed_covariance,
        rejected,
        used,
    )


def _filter(
    state: NavigationState,
    covariance: Array,
    imu: ImuStream,
    epochs: Sequence[Epoch],
    noise: ImuNoise,
    around: Sequence[NavigationState] | None,
) -> tuple[list[_Stop], int, int]:
    stops: list[_Stop] = []
    rejected = used = 0
    time, transition = epochs[0].time_s, np.eye(SIZE)
    for index, epoch in enumerate(epochs):
        if stops:
            times, gyro, accel = _samples(imu, time, epoch.time_s)
            state, covariance, step = propagate(state, covariance, times, gyro, accel, noise)
            transition = step @ transition
        predicted, predicted_covariance = state, covariance
        for measurement in epoch.measurements:
            at = state if around is None else around[index]
            linear = measurement.linearised(at, covariance)
            if around is not None:
                shifted = linear.residual - linear.jacobian @ state.minus(at)
                linear = Linearised(shifted, linear.jacobian, linear.covariance)
            if not _passes(linear, covariance):
                rejected += 1
                continue
            state, covariance = update(state, covariance, linear)
            used += 1
        stops.append(_Stop(predicted, predicted_covariance, transition, state, covariance))
        transition, time = np.eye(SIZE), epoch.time_s
        if epoch.is_anchor:
            state, covariance, transition = state.cloned(), CLONING @ covariance @ CLONING.T, CLONING
    return stops, rejected, used


def update(state: NavigationState, covariance: Array, linear: Linearised) -> tuple[NavigationState, Array]:
    """Return the state and covariance after a measurement; the covariance in Joseph's form, which stays positive."""
    h, r = linear.jacobian, linear.covariance
    innovation = h @ covariance @ h.T + r
    gain = np.linalg.solve(innovation, h @ covariance).T
    left = np.eye(SIZE) - gain @ h
    updated = left @ covariance @ left.T + gain @ r @ gain.T
    return state.plus(gain @ linear.residual), (updated + updated.T) / 2


def _passes(linear: Linearised, covariance: Array) -> bool:
    innovation = linear.jacobian @ covariance @ linear.jacobian.T + linear.covariance
    distance = float(linear.residual @ np.linalg.solve(innovation, linear.residual))
    return distance <= float(chi2.ppf(GATE, len(linear.residual)))


def _smooth(stops: Sequence[_Stop]) -> tuple[list[NavigationState], Array]:
    states, covariances = [stops[-1].state], [stops[-1].covariance]
    for stop, after in zip(reversed(stops[:-1]), reversed(stops[1:]), strict=True):
        gain = stop.covariance @ after.transition.T @ _inverse(after.predicted_covariance)
        states.append(stop.state.plus(gain @ states[-1].minus(after.predicted)))
        back = stop.covariance + gain @ (covariances[-1] - after.predicted_covariance) @ gain.T
        covariances.append((back + back.T) / 2)
    return states[::-1], np.stack(covariances[::-1])


def _inverse(covariance: Array) -> Array:
    """Return a pseudo-inverse: what is known exactly, such as the first pose, has no spread to be divided by."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    correlation = covariance / np.outer(deviation, deviation)
    return np.asarray(np.linalg.pinv(correlation, rcond=1e-12, hermitian=True) / np.outer(deviation, deviation))


def _samples(imu: ImuStream, start_s: float, end_s: float) -> tuple[Array, Array, Array]:
    """Return the samples between two times, with interpolated ones at both."""
    inside = slice(
        int(np.searchsorted(imu.times_s, start_s, side="right")), int(np.searchsorted(imu.times_s, end_s, side="left"))
    )
    times = np.concatenate([[start_s], imu.times_s[inside], [end_s]])

    def at_ends(values: Array) -> Array:
        ends = np.stack([np.interp([start_s, end_s], imu.times_s, values[:, k]) for k in range(3)], axis=1)
        return np.concatenate([ends[:1], values[inside], ends[1:]])

    return times, at_ends(imu.gyro), at_ends(imu.accel)
