"""Samples work offline, and the synthetic one says that it is synthetic wherever it goes."""

from __future__ import annotations

import socket
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from medfusion import synthetic
from medfusion.errors import ScanError
from medfusion.imaging import display
from medfusion.samples import list_samples, read_sample, sample_bytes


@pytest.mark.parametrize("sample", list_samples(), ids=lambda sample: sample.id)
def test_every_sample_is_read_without_a_network(sample, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    picture = display(read_sample(sample.id))
    assert np.ptp(picture) > 100
    assert sample.title and sample.origin


def test_models_are_suggested_for_the_samples_that_they_were_made_for():
    suits = {sample.model_id: sample.id for sample in list_samples() if sample.model_id}
    assert suits == {"retina": "fundus", "chest-xray": "synthetic-chest"}


def test_the_fundus_is_the_photograph_in_colour():
    scan = read_sample("fundus")
    red, _, blue = scan.frames[0, 700, 700].astype(int)
    assert scan.frames.shape == (1, 1411, 1411, 3) and red > blue + 50


def test_unknown_samples_are_refused_with_a_list():
    with pytest.raises(ScanError, match="Available: synthetic-chest, fundus"):
        read_sample("nothing")


def test_the_synthetic_chest_is_marked_in_title_notes_header_and_pixels():
    (sample,) = [sample for sample in list_samples() if sample.id == "synthetic-chest"]
    scan = read_sample(sample.id)
    assert "Synthetic" in sample.title and "Synthetic" in sample.origin
    assert "synthetic" in scan.notes[0]
    assert "Synthetic" in dcmread(BytesIO(sample_bytes(sample.id))).ImageComments
    words = scan.frames[0, :60, 20:400]
    assert (words == synthetic.TOP).mean() > 0.03  # letters at the highest value
    assert np.median(words) < synthetic.TOP * 0.2  # on a dark ground


def test_the_synthetic_chest_is_the_same_at_every_call():
    np.testing.assert_array_equal(synthetic.chest_xray(128), synthetic.chest_xray(128))
    assert synthetic.chest_xray_dicom.__wrapped__() == sample_bytes("synthetic-chest")


def test_the_synthetic_chest_has_the_anatomy_of_a_frontal_film():
    film = synthetic.chest_xray().astype(float) / synthetic.TOP  # y by x, 1024 × 1024
    right_lung, left_lung = film[500:560, 180:330].mean(), film[500:560, 760:860].mean()
    heart, spine, liver = film[620:660, 560:640].mean(), film[500:600, 490:530].mean(), film[860:900, 250:350].mean()
    air = film[20:60, 420 - 300 : 420 - 200].min()
    assert air < 0.05
    assert max(right_lung, left_lung) < 0.6 < min(heart, spine, liver)
    assert (
        film[620:660, 640:700].mean() > film[620:660, 1024 - 700 : 1024 - 640].mean() + 0.2
    )  # the heart lies to the left


def test_it_is_12_bit_dx_with_a_window():
    scan = read_sample("synthetic-chest")
    assert (scan.modality, scan.body_part, scan.frames.dtype) == ("DX", "CHEST", np.uint16)
    assert scan.frames.max() <= 4095 and scan.windows
