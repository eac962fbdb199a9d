"""A calibration set: who is in it, what is left out, and that nobody is named in it."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
from pydicom.data import get_testdata_file

from edgemed.base.arrays import write_npz
from edgemed.base.errors import InputError
from edgemed.calibrate import keep
from edgemed.calibrate.assemble import Assembled, Order, assemble
from edgemed.calibrate.dataset import open_calibration_set
from edgemed.imaging.deid.deidentify import deidentify_file, silent_pydicom
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.regions import RegionRule
from edgemed.imaging.deid.report import DeidReport
from edgemed.imaging.dicom import open_dicom
from edgemed.imaging.read import read_arrays, read_image
from edgemed.imaging.series import read_series, series_files
from edgemed.recipe.schema import load_recipe

NAME = "Kanarienvogel"


def write_ct(path: Path, patient: str, number: int, **more: Any) -> Path:
    """A real CT slice of another patient: its pixels moved by `number`, so that each file differs."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.PatientID, dataset.PatientName = patient, f"{NAME}^{patient}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.StudyInstanceUID = f"1.2.4.{int.from_bytes(patient.encode(), 'big')}"
    dataset.PixelData = np.roll(np.frombuffer(dataset.PixelData, "<i2"), number).tobytes()
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three patients with 9, 2 and 1 images; the file names are names of people."""
    folder = tmp_path / "in"
    for patient, count in (("A1", 9), ("B2", 2), ("C3", 1)):
        for index in range(count):
            write_ct(folder / f"{NAME}_{patient}_{index}.dcm", patient, index + 20 * ord(patient[0]))
    return folder


def patients(made: Assembled) -> list[int]:
    return sorted(Counter(image.patient for image in made.manifest.images).values(), reverse=True)


def everything(folder: Path) -> bytes:
    """All bytes and names below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"".join(path.name.encode() + path.read_bytes() for path in files)


def test_patients_take_turns(study: Path, tmp_path: Path) -> None:
    made = assemble(Order((study,), tmp_path / "set", count=6))
    assert patients(made) == [3, 2, 1], "the largest patient fills up only when the others are used up"
    assert made.manifest.offered == 12
    assert NAME.lower() not in everything(tmp_path / "set").decode("latin-1").lower()
    assert b"A1" not in (tmp_path / "set" / "calibration.json").read_bytes()


def test_the_same_seed_and_key_give_the_same_set(study: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    first = assemble(Order((study,), tmp_path / "one", count=5, key=key))
    moved = study.rename(tmp_path / "moved")
    second = assemble(Order((moved,), tmp_path / "two", count=5, key=key))
    assert first.manifest == second.manifest
    other = assemble(Order((moved,), tmp_path / "three", count=5, key=key, seed=1))
    assert other.manifest.images != first.manifest.images
    assert key.stat().st_mode & 0o077 == 0, "the key is for its owner only"
    assert key.read_bytes().strip() not in everything(tmp_path / "one")


def test_pseudonyms_join_data_of_one_key_only(study: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    sets = [assemble(Order((study,), tmp_path / name, count=12, key=key, seed=n)) for n, name in enumerate("ab")]
    known = [{image.patient for image in made.manifest.images} for made in sets]
    assert known[0] == known[1]
    stranger = assemble(Order((study,), tmp_path / "c", count=12))
    assert not known[0] & {image.patient for image in stranger.manifest.images}
    file = pydicom.dcmread(tmp_path / "a" / sets[0].manifest.images[0].file)
    assert file.PatientID == sets[0].manifest.images[0].patient, "the file says the pseudonym of the manifest"


def test_build_takes_the_folder(study: Path, tmp_path: Path) -> None:
    made = assemble(Order((study,), tmp_path / "set"))
    opened = open_calibration_set(tmp_path / "set")
    assert {sample.name: digest for sample, digest in opened.hashes.items()} == {
        image.file: image.sha256 for image in made.manifest.images
    }


def test_the_contract_decides_and_the_recipe_comes_along(study: Path, tmp_path: Path) -> None:
    write_ct(study / "mr.dcm", "D4", 3, Modality="MR")
    write_ct(study / "big.dcm", "E5", 4, BurnedInAnnotation="YES")
    (study / "broken.dcm").write_bytes((study / "mr.dcm").read_bytes()[:3000])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[input.contract]\nmodalities = ["CT"]\n')
    made = assemble(Order((study,), tmp_path / "set", recipe=recipe))
    assert made.manifest.refused == {"burned-in text": 1, "contract": 1, "unreadable": 1}
    assert load_recipe(tmp_path / "set" / "recipe.toml").input.contract.modalities == ("CT",)
    assert not any(str(study) in refusal.reason for refusal in made.refusals)


def test_region_rules_are_used(study: Path, tmp_path: Path) -> None:
    for path in study.glob("*.dcm"):
        path.unlink()
    write_ct(study / "a.dcm", "A1", 1, BurnedInAnnotation="YES")
    rule = RegionRule(blank=((0, 0, 10, 128),))
    made = assemble(Order((study,), tmp_path / "set", options=Options(regions=(rule,))))
    stored = open_dicom(tmp_path / "set" / made.manifest.images[0].file)
    assert len(np.unique(stored.frame(0).pixels[:10])) == 1
    assert "113101" in made.report.files[0].codes


def test_other_formats_lose_what_is_no_pixel(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 65535, (20, 30), dtype=np.uint16)
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("Patient", NAME)
    PIL.Image.fromarray(gray).save(folder / "gray.png", pnginfo=info)
    exif = PIL.Image.Exif()
    exif[0x010E] = NAME
    color = PIL.Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    color.save(folder / "photo.jpg", exif=exif, comment=NAME)
    PIL.Image.fromarray(rng.random((8, 8), dtype=np.float32)).save(folder / "float.tif", description=NAME)
    np.savez(folder / "arrays.npz", x=gray)
    volume = nibabel.Nifti1Image(rng.random((4, 5, 6)).astype(np.float32), np.diag([2, 2, 3, 1]))
    volume.header["descrip"] = NAME.encode()
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", NAME.encode()))
    nibabel.save(volume, folder / "volume.nii.gz")
    made = assemble(Order((folder,), tmp_path / "set"))
    assert len(made.manifest.images) == 5
    assert all(image.patient is None for image in made.manifest.images)
    assert NAME.encode() not in everything(tmp_path / "set")
    stored = {path.suffix: path for path in (tmp_path / "set").iterdir()}
    pngs = [read_image(path).pixels for path in (tmp_path / "set").glob("*.png")]
    assert any(np.array_equal(pixels, gray) for pixels in pngs)
    assert any(np.array_equal(pixels, read_image(folder / "photo.jpg").pixels) for pixels in pngs)
    assert np.array_equal(read_image(stored[".tif"]).pixels, read_image(folder / "float.tif").pixels)
    again = nibabel.load(stored[".nii"])
    assert np.array_equal(np.asarray(again.dataobj), np.asarray(volume.dataobj))
    assert np.array_equal(again.affine, volume.affine)


VOLUME = '[input]\nkind = "volume"\n'


@pytest.mark.parametrize("kind", ["volume", "image"])
def test_what_the_stored_images_no_longer_say_the_contract_misses(tmp_path: Path, kind: str) -> None:
    """The maker's name goes with the device: images come out of a build as the contract would refuse them there."""
    for index in range(3):
        place = [-158.0, -179.0, 5.0 * index]
        write_ct(tmp_path / "in" / "s" / f"{index}.dcm", "A", index, Manufacturer="ACME", ImagePositionPatient=place)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[input]\nkind = "{kind}"\n[input.contract]\nmanufacturers = ["ACME"]\n')
    with pytest.raises(InputError, match=r"contract: After de-identification: .*anufacturer"):
        assemble(Order((tmp_path / "in",), tmp_path / "set", recipe=recipe))


def test_a_series_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    for name, flags in {"good": "NNN", "late": "NNY", "twin": "NNN"}.items():
        for index, flag in enumerate(flags):
            more = {"BurnedInAnnotation": {"N": "NO", "Y": "YES"}[flag], "SeriesInstanceUID": f"1.2.5.{len(name)}"}
            place = [-158.0, -179.0, 5.0 * index]
            write_ct(tmp_path / "in" / name / f"{index}.dcm", "A", index, ImagePositionPatient=place, **more)
    (tmp_path / "recipe.toml").write_text(VOLUME)
    made = assemble(Order((tmp_path / "in",), tmp_path / "set", recipe=tmp_path / "recipe.toml"))
    assert made.manifest.refused == {"burned-in text": 1, "copy": 1}
    (image,) = made.manifest.images
    assert {path.name for path in (tmp_path / "set").iterdir() if path.is_dir()} == {image.file}
    stored = read_series(series_files(tmp_path / "set" / image.file)).pixels
    assert np.array_equal(stored, read_series(series_files(tmp_path / "in" / "good")).pixels)


def test_a_series_whose_pixels_change_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        write_ct(tmp_path / "in" / "s" / f"{index}.dcm", "A", index, ImagePositionPatient=[0.0, 0.0, 5.0 * index])
    (tmp_path / "recipe.toml").write_text(VOLUME)

    def spoiled(path: Path, options: Options) -> tuple[pydicom.FileDataset, DeidReport]:
        file, report = deidentify_file(path, options)
        file.PixelData = bytes(len(file.PixelData))
        return file, report

    monkeypatch.setattr(keep, "deidentify_file", spoiled)
    with pytest.raises(InputError, match="After de-identification: its pixels changed"):
        assemble(Order((tmp_path / "in",), tmp_path / "set", recipe=tmp_path / "recipe.toml"))


def test_an_array_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    arrays = {"file": np.arange(4.0), "allow_pickle": np.ones((2, 2))}
    (tmp_path / "in" / "a.npz").write_bytes(write_npz(arrays))
    made = assemble(Order((tmp_path / "in",), tmp_path / "set"))
    stored = read_arrays(tmp_path / "set" / made.manifest.images[0].file)
    assert stored.keys() == arrays.keys()
    assert np.array_equal(stored["file"], arrays["file"])


def test_series_are_one_sample_for_volumes(tmp_path: Path) -> None:
    for series in range(2):
        for index in range(3):
            write_ct(
                tmp_path / "in" / f"s{series}" / f"{index}.dcm",
                f"P{series}",
                index + 10 * series,
                SeriesInstanceUID=f"1.2.5.{series + 1}",
                ImagePositionPatient=[-158.0, -179.0, 5.0 * index],
            )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[input]\nkind = "volume"\n')
    made = assemble(Order((tmp_path / "in",), tmp_path / "set", recipe=recipe))
    assert len(made.manifest.images) == 2
    opened = open_calibration_set(tmp_path / "set", load_recipe(recipe))
    assert {sample.name: digest for sample, digest in opened.hashes.items()} == {
        image.file: image.sha256 for image in made.manifest.images
    }
    first = tmp_path / "set" / made.manifest.images[0].file
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in first.iterdir()}) == 1


def test_reasons_name_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for series in range(2):
        for index in range(2):
            path = folder / f"mixed_{NAME}" / f"{NAME}_{series}_{index}.dcm"
            place = [0.0, 0.0, 5.0 * (2 * series + index)]
            write_ct(path, "A1", 2 * series + index, SeriesInstanceUID=f"1.2.5.{series}", ImagePositionPatient=place)
            write_ct(folder / "whole" / f"{index}.dcm", "B2", index, ImagePositionPatient=place)
    for index in range(2):
        path = write_ct(folder / "flat" / f"{NAME}{index}.dcm", "C3", index)
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    (folder / "cut").mkdir()
    (folder / "cut" / f"{NAME}.nii").write_bytes(b"nothing")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[input]\nkind = "volume"\n')
    made = assemble(Order((folder,), tmp_path / "set", recipe=recipe))
    reasons = sorted(refusal.reason for refusal in made.refusals)
    assert "a file is of another series than another." in reasons
    assert "a file does not say its position: it is no slice of a volume." in reasons
    assert len(reasons) == 3
    assert not any(NAME in reason for reason in reasons)


@pytest.mark.parametrize("patient", ["X" * 65, "AB\x1b[31m", "A\nB"])
def test_what_is_no_pseudonym_is_not_told(tmp_path: Path, patient: str) -> None:
    with silent_pydicom():  # that would warn of the value
        write_ct(tmp_path / "in" / "a.dcm", patient, 1, PatientIdentityRemoved="YES", PatientName="X")
        write_ct(tmp_path / "in" / "b.dcm", "P-1", 2, PatientIdentityRemoved="YES", PatientName="X")
    opened = open_calibration_set(tmp_path / "in")
    manifest = opened.manifest(opened.samples, opened.samples)
    assert [sample.patient for sample in manifest.samples] == [None, "P-1"]


def test_a_manifest_names_samples_by_hash_not_by_file(tmp_path: Path) -> None:
    PIL.Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in" / os.fsdecode(b"\xff.png"))
    (tmp_path / "in" / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    opened = open_calibration_set(tmp_path / "in")
    manifest = opened.manifest(opened.samples, opened.samples)
    said = json.loads(manifest.model_dump_json())["samples"]
    assert [s["file"] for s in said] == [f"{s['sha256'][:16]}.png" for s in said]
    made = assemble(Order((tmp_path / "in",), tmp_path / "set"))
    assert len(made.manifest.images) == 1
    assert "xfe" not in json.dumps([refusal.reason for refusal in made.refusals])


def test_labels_name_the_images(study: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in study.iterdir())[:4]
    rows = [f"{name},{'ab'[n % 2]},p{n % 3}" for n, name in enumerate(names)]
    table = study / "labels.csv"
    table.write_text("\n".join(["file,label,patient", *rows]))
    made = assemble(Order((), tmp_path / "set", labels=table))
    assert Counter(image.labels for image in made.manifest.images) == {("a",): 2, ("b",): 2}
    assert patients(made) == [2, 1, 1]


def test_copies_count_once(study: Path, tmp_path: Path) -> None:
    path = next(study.iterdir())
    (study / "copy.dcm").write_bytes(path.read_bytes())
    made = assemble(Order((study,), tmp_path / "set"))
    assert made.manifest.refused == {"copy": 1}
    assert len(made.manifest.images) == 12


def test_nothing_is_left_behind_when_nothing_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_ct(folder / "a.dcm", "A1", 1, BurnedInAnnotation="YES")
    with pytest.raises(InputError, match="None of the images"):
        assemble(Order((folder,), tmp_path / "set"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_there_is_not_replaced_by_accident(study: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    assemble(Order((study,), target, count=1))
    with pytest.raises(InputError, match="exists already"):
        assemble(Order((study,), target, count=2))
    assert len(assemble(Order((study,), target, count=2, force=True)).manifest.images) == 2
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="was not made by edgemed calibrate"):
        assemble(Order((study,), foreign, force=True))
    with pytest.raises(InputError, match="would be replaced"):
        assemble(Order((target,), target, force=True))


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "0" * 63])
def test_a_bad_key_is_refused(study: Path, tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    with pytest.raises(InputError, match="key"):
        assemble(Order((study,), tmp_path / "set", key=key))


def test_a_key_in_the_set_is_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="would lie in the set"):
        assemble(Order((study,), tmp_path / "set", key=tmp_path / "set" / "key"))


def test_documents_are_json(study: Path, tmp_path: Path) -> None:
    assemble(Order((study,), tmp_path / "set", count=2))
    report = json.loads((tmp_path / "set" / "deid-report.json").read_text())
    assert report["schema"] == "edgemed/deid-set-report/1"
    names = next(tag for tag in report["tags"] if tag["path"] == "PatientName")
    assert (names["action"], names["count"]) == ("replaced", 2)
    with io.BytesIO((tmp_path / "set" / report["files"][0]["file"]).read_bytes()) as file:
        assert pydicom.dcmread(file).PatientIdentityRemoved == "YES"
