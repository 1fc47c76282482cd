"""The digits that L-BFGS reaches of NIST's certified parameters, at least, and along which directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .fitting import HESSIAN, SCALE


@dataclass(frozen=True, slots=True)
class Promise:
    """The digits that a problem reaches at least, along which directions, and what stands in the way of more."""

    digits: int
    directions: str = HESSIAN
    remark: str = ""


CLOSE_RATES = "three decays of close rates: many parameters fit almost as well"
PROMISES: Mapping[str, Promise] = {
    "Bennett5": Promise(
        5, SCALE, "a line search along the Hessian's directions leaves the model's domain and ends in NaN"
    ),
    "BoxBOD": Promise(7),
    "Chwirut1": Promise(7),
    "Chwirut2": Promise(7),
    "DanWood": Promise(7),
    "ENSO": Promise(6),
    "Eckerle4": Promise(7),
    "Gauss1": Promise(7),
    "Gauss2": Promise(7),
    "Gauss3": Promise(7),
    "Hahn1": Promise(6),
    "Kirby2": Promise(6),
    "Lanczos1": Promise(6, remark=CLOSE_RATES),
    "Lanczos2": Promise(6, remark=CLOSE_RATES),
    "Lanczos3": Promise(5, remark=CLOSE_RATES),
    "MGH09": Promise(6),
    "MGH10": Promise(6),
    "MGH17": Promise(6),
    "Misra1a": Promise(6),
    "Misra1b": Promise(7),
    "Misra1c": Promise(6),
    "Misra1d": Promise(7),
    "Nelson": Promise(6),
    "Rat42": Promise(7),
    "Rat43": Promise(6),
    "Roszman1": Promise(7),
    "Thurber": Promise(6),
}
