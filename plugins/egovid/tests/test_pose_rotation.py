from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose import rotation as so3

vectors = st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3).map(np.array)


@given(vectors)
@settings(max_examples=50, deadline=None)
def test_exp_and_log_are_inverses_and_exp_is_a_rotation(v: np.ndarray) -> None:
    r = so3.exp(v)
    assert np.allclose(so3.log(r), v, atol=1e-9)
    assert np.allclose(r @ r.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1)


def test_exp_turns_the_right_way() -> None:
    assert np.allclose(so3.exp(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(so3.hat(np.array([1.0, 2, 3])) @ [4, 5, 6], np.cross([1, 2, 3], [4, 5, 6]))
    a, b = np.random.default_rng(0).standard_normal((2, 7, 3))
    assert np.allclose(so3.cross(a, b), np.cross(a, b))


@given(vectors)
@settings(max_examples=30, deadline=None)
def test_the_right_jacobian_is_the_derivative(v: np.ndarray) -> None:
    jacobian, step = so3.right_jacobian(v), 1e-6
    for axis in np.eye(3):
        found = so3.log(so3.exp(v).T @ so3.exp(v + step * axis)) / step
        assert np.allclose(found, jacobian @ axis, atol=1e-5)
    assert np.allclose(so3.right_jacobian_inverse(v) @ jacobian, np.eye(3), atol=1e-9)


def test_quaternion_orders_are_what_their_names_say() -> None:
    quarter_about_z = so3.exp(np.array([0, 0, np.pi / 2]))
    half = np.sqrt(0.5)
    assert np.allclose(so3.to_xyzw(quarter_about_z), [0, 0, half, half])
    assert np.allclose(so3.to_wxyz(quarter_about_z), [half, 0, 0, half])
    assert np.allclose(so3.from_wxyz(np.array([half, 0, 0, half])), quarter_about_z)
    # The published script multiplies [x, y, z, w] as if it were [w, x, y, z]; that is another rotation.
    assert not np.allclose(so3.from_wxyz(so3.to_xyzw(quarter_about_z)), quarter_about_z, atol=0.1)


def test_q_and_minus_q_are_one_rotation_and_signs_can_be_made_continuous() -> None:
    turns = so3.exp(np.linspace(0, 6, 40)[:, None] * np.array([0, 1.0, 0]))
    q = so3.to_xyzw(turns)
    flipped = q * np.where(np.arange(40) % 3 == 0, -1.0, 1.0)[:, None]
    assert np.allclose(so3.from_xyzw(flipped), turns)
    smooth = so3.same_signs(flipped)
    assert (np.sum(smooth[1:] * smooth[:-1], axis=1) > 0.9).all()
    assert np.allclose(so3.from_xyzw(smooth), turns)


@pytest.mark.parametrize("bad", [[0.0, 0, 0, 0], [np.nan, 0, 0, 1]])
def test_a_quaternion_that_is_none_is_refused(bad: list[float]) -> None:
    with pytest.raises(PoseError, match="quaternion 1 is"):
        so3.from_xyzw(np.array([[0.0, 0, 0, 1], bad]))


def test_the_nearest_rotation_never_mirrors() -> None:
    mirrored = np.diag([1.0, 1.0, -1.0])
    assert np.linalg.det(so3.nearest_rotation(mirrored)) == pytest.approx(1)
    r = so3.exp(np.array([0.3, -0.2, 0.9]))
    assert np.allclose(so3.nearest_rotation(r + 1e-4), r, atol=1e-3)
