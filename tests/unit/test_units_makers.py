"""Two generators: which of them makes which unit, and that no file has two makers."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_units_quadlet import write

from sysbox.base.errors import Conflict
from sysbox.cli.doctor import declared as checks
from sysbox.conf.values import Settings
from sysbox.lifecycle import unit, unit_files, unit_makers
from sysbox.units import serviceplan
from sysbox.units.quadlet import generate, sources
from sysbox.units.quadlet.units import Service

IMAGE = "[Container]\nImage=x\n"
WANTED = "[Install]\nWantedBy=a.target\n"
PODMAN = "/usr/lib/systemd/system-generators/podman-system-generator"


class Places:
    """Directories in place of those of the machine."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        names = ("ours", "podmans", "normal", "early", "etc", "run")
        for name in names:
            (top / name).mkdir()
        self.ours, self.podmans, self.normal, self.early, self.etc, self.run = (
            top / name for name in names
        )
        self._patch = patch
        patch.setattr(sources, "PODMANS", (str(self.podmans),))
        patch.setattr(sources, "DIRECTORIES", (str(self.ours), str(self.podmans)))
        patch.setattr(generate, "_ADMINISTRATORS", (str(self.etc), str(self.run)))
        self.podman(there=True)

    def podman(self, *, there: bool) -> None:
        self._patch.setattr(generate, "podmans", lambda: PODMAN if there else "")

    def take(self) -> None:
        """PodmanFiles=sysbox."""
        self._patch.setattr(
            "sysbox.conf.settings.settings", lambda: Settings(podman_files="sysbox")
        )

    def generate(self) -> None:
        """What sysbox's generator does."""
        found = sources.find(unit_makers.directories())
        made = generate.generate(found, "sysbox")
        generate.write(made, str(self.normal), str(self.early))

    def written(self) -> dict[str, list[str]]:
        return {
            top.name: sorted(
                str(one.relative_to(top)) for one in top.rglob("*.*") if not one.is_dir()
            )
            for top in (self.normal, self.early)
        }


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


def test_both_never_write_into_one_directory(places: Places) -> None:
    """Also where a name of one is another name of the other: a link would be written through."""
    write(places.ours, web__container=f"{IMAGE}{WANTED}Alias=db.service\n", x__container=IMAGE)
    alias = f"{IMAGE}[Install]\nAlias=x.service\n"
    write(places.podmans, web__container=alias, db__container=IMAGE)
    said = [
        f"{places.ours}/{own}.container: {PODMAN} makes {unit}.service of {places.podmans}/{their}.container,"
        " too: systemd takes that of sysbox"
        for own, unit, their in (("web", "web", "web"), ("web", "db", "db"), ("x", "x", "web"))
    ]
    found = generate.generate(unit_makers.left_to_sysbox(), "sysbox")
    assert unit_makers.of_both(found.made_of, takes=False) == said
    parts = [one.partition(": ")[2] for one in said[:2]]
    assert notes()["ours/web.container"] == "; ".join(parts)
    assert [one.name for one in checks._twice()] == ["db.service", "web.service", "x.service"]
    places.generate()
    made = ["a.target.wants/web.service", "db.service", "web.service", "x.service"]
    assert places.written() == {"normal": [], "early": made}


def test_what_an_administrator_has_comes_first(places: Places) -> None:
    write(places.ours, a__container=f"{IMAGE}[Install]\nAlias=d.service\n", b__container=IMAGE)
    write(places.ours, c__container=IMAGE)
    (places.etc / "b.service").touch()
    (places.etc / "d.service").touch()
    (places.run / "c.service").symlink_to("/dev/null")
    places.generate()
    assert places.written()["early"] == ["a.service"]


def test_without_podmans_generator_units_are_where_others_override_them(places: Places) -> None:
    places.podman(there=False)
    write(places.ours, web__container=f"{IMAGE}{WANTED}")
    write(places.podmans, db__container=IMAGE)
    (places.run / "web.service").touch()
    places.generate()
    made = ["a.target.wants/web.service", "db.service", "web.service"]
    assert places.written() == {"normal": made, "early": []}


def notes() -> dict[str, str]:
    """What `unit check` says of each file, by its name with its directory."""
    makers = unit_makers.Makers()
    found: dict[str, str] = {}
    for chosen in unit_files.everything():
        for one in chosen.services():
            found["/".join(one.source.path.rsplit("/")[-2:])] = makers.note(one)
    return found


def test_who_makes_what_is_said(places: Places) -> None:
    write(
        places.ours,
        web__container=IMAGE,
        own__container=IMAGE,
        x__volume="[Volume]\nServiceName=play\n",
    )
    write(places.podmans, web__container=IMAGE, db__container=IMAGE, play__kube="[Kube]\nYaml=x\n")
    write(places.podmans, db__socket="[Socket]\nListenStream=1\n")
    found = notes()
    theirs, conf = f"{PODMAN} makes a unit of it", "(PodmanFiles= of sysbox.conf)"
    assert found == {
        "ours/own.container": "",
        "ours/web.container": f"{PODMAN} makes web.service of {places.podmans}/web.container, too: "
        "systemd takes that of sysbox",
        "ours/x.volume": f"{PODMAN} makes play.service of {places.podmans}/play.kube, too: "
        "systemd takes that of sysbox",
        "podmans/db.container": f"{theirs}, and sysbox does not {conf}",
        "podmans/db.socket": f"nobody makes a unit of it: {PODMAN} knows no .socket files",
        "podmans/play.kube": theirs,
        "podmans/web.container": f"{theirs}, and sysbox does not {conf}; systemd takes the web.service that "
        f"sysbox makes of {places.ours}/web.container",
    }  # fmt: skip
    assert [(one.name, one.detail) for one in checks._twice()] == [
        (unit, f"of {places.ours}/{own} and of {places.podmans}/{their}: systemd takes the first")
        for unit, own, their in (
            ("play.service", "x.volume", "play.kube"),
            ("web.service", "web.container", "web.container"),
        )
    ]


def test_who_makes_what_where_sysbox_takes_podmans(places: Places) -> None:
    """One file name is one declaration then, as with all directories."""
    places.take()
    write(places.ours, web__container=IMAGE)
    write(places.podmans, web__container=IMAGE, db__container=IMAGE, play__kube="[Kube]\nYaml=x\n")
    assert notes() == {
        "ours/web.container": "",
        "podmans/db.container": f"sysbox makes a unit of it, in place of that of {PODMAN} (PodmanFiles= of "
        "sysbox.conf)",
        "podmans/play.kube": f"{PODMAN} makes a unit of it",
    }
    assert checks._twice() == []
    places.generate()
    assert places.written() == {"normal": [], "early": ["db.service", "web.service"]}


def service_of(path: Path) -> Service:
    return unit_files.made([str(path)])[0]


def test_what_podman_makes_is_nothing_that_a_file_of_ours_can_refer_to(places: Places) -> None:
    """Podman's volumes and networks are not sysbox's; the generator and `unit check` say the same."""
    write(places.ours, web__container=f"{IMAGE}Volume=data.volume:/d\n")
    write(
        places.podmans, data__volume="[Volume]\n", db__container=f"{IMAGE}Volume=data.volume:/d\n"
    )
    own, theirs = places.ours / "web.container", places.podmans / "db.container"
    assert service_of(own).error == f"{own}:3: Volume=: there is no data.volume"
    assert service_of(theirs).error == ""
    errors = {
        one.source.name: one.error
        for chosen in unit_files.everything()
        for one in chosen.services()
    }
    assert {name for name, error in errors.items() if error} == {"web.container"}
    places.take()
    assert service_of(own).error == ""


def test_an_installed_unit_takes_no_place_of_a_generated_one(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But of one that was made of the same file, which the generator then leaves out."""
    monkeypatch.setattr(unit, "DIRECTORY", str(places.etc))
    monkeypatch.setattr(serviceplan, "GENERATED", (str(places.normal),))
    write(tmp_path, web__container=IMAGE, other__container=IMAGE)
    (places.normal / "web.service").write_text(f"[Unit]\nSourcePath={tmp_path}/other.container\n")
    (places.normal / "alias.service").symlink_to("web.service")
    with pytest.raises(
        Conflict, match=r"take the place of .*/normal/web\.service, made of .*/other\."
    ):
        unit._check_free("web.service", f"{tmp_path}/web.container")
    unit._check_free("web.service", f"{tmp_path}/other.container")
    unit._check_free("alias.service", f"{tmp_path}/web.container")
    (tmp_path / "other.container").unlink()
    unit._check_free("web.service", f"{tmp_path}/web.container")
