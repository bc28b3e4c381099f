"""OHIF fetched from a registry, given at /ohif/, opened, and taken away again."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dicom_assets.cli.main import app as command_line
from dicom_assets.serve.viewing import ohif_package
from dicom_assets.serve.viewing.ohif_package import ViewerError, folder_of, install, installed
from dicom_assets.serve.viewing.study_links import viewers_of
from dicom_assets.settings import Settings
from dicom_assets_tests.serve import ohif, viewable
from dicom_assets_tests.serve.serving import serving
from dicom_assets_tests.support.browser import PATIENCE, chromium, needs_browser, shot
from dicom_assets_tests.support.dicoms import uid

PAGE = (
    b'<!doctype html><script>window.PUBLIC_URL="/"</script><link href="/a.css" rel="stylesheet">'
    b'<script src="/app-config.js"></script><script defer src="/app.bundle.0123456789abcdef.js"></script>'
)
SCRIPT = b'x();\n__webpack_require__.p = "/";\n'
SMALL = {
    "package/LICENSE": b"MIT",
    "package/dist/index.html": PAGE,
    "package/dist/app.bundle.0123456789abcdef.js": SCRIPT,
    "package/dist/a.css": b"a { src: url(/font.woff2) }",
    "package/dist//deep/x.svg": b"<svg/>",
    "package/dist/ort/model.onnx": b"large",
}


def packed(files: Mapping[str, bytes], *further: tarfile.TarInfo) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in further:
            archive.addfile(member)
    return sink.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"lake": str(tmp_path / "lake"), "sources": [], "serve": {"viewer_folder": str(tmp_path / "viewer")}}
    )


@pytest.fixture
def as_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Makes an archive the one that is meant; where it lies."""

    def publish(content: bytes) -> Path:
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        monkeypatch.setattr(ohif_package, "INTEGRITY", f"sha512-{digest}")
        (tmp_path / "package.tgz").write_bytes(content)
        return tmp_path / "package.tgz"

    return publish


class TestPackage:
    def test_is_unpacked_so_that_it_stands_below_another_path(self, settings: Settings, as_published):
        found = install(settings, as_published(packed(SMALL)))
        assert installed(settings) == found
        assert sorted(one.name for one in found.pages.iterdir()) == [
            *("a.css", "app.bundle.0123456789abcdef.js", "deep", "index.html"),
        ]
        assert b'"/"' not in (found.pages / "app.bundle.0123456789abcdef.js").read_bytes()
        assert (found.pages / "a.css").read_bytes() == b"a { src: url(font.woff2) }"

    def test_that_is_another_one_is_refused_and_what_was_there_stays(
        self, settings: Settings, as_published, tmp_path: Path
    ):
        before = install(settings, as_published(packed(SMALL)))
        (tmp_path / "other.tgz").write_bytes(packed({**SMALL, "package/dist/x.js": b"harm()"}))
        with pytest.raises(ViewerError, match="This is not @ohif/app"):
            install(settings, tmp_path / "other.tgz")
        assert installed(settings) == before and (before.pages / "index.html").is_file()

    @pytest.mark.parametrize(
        "archive",
        [
            packed({**SMALL, "package/dist/../../../outside": b""}),
            packed({**SMALL, "/outside": b""}),
            packed({**SMALL, "package/dist/C:outside": b""}),
            packed(SMALL, link("package/dist/inside", "/etc")),
            packed({"package/dist/a.js": b""}),
            packed(SMALL)[:-200],
            b"no archive",
        ],
        ids=["climbing", "absolute", "drive", "link", "without its page", "cut off", "no archive"],
    )
    def test_that_is_unsafe_or_broken_leaves_nothing(
        self, settings: Settings, as_published, tmp_path: Path, archive: bytes
    ):
        with pytest.raises(ViewerError, match="Nothing was changed"):
            install(settings, as_published(archive))
        assert installed(settings) is None and list(folder_of(settings).iterdir()) == []
        assert not list(tmp_path.parent.rglob("outside"))

    def test_that_is_interrupted_leaves_what_was_there(
        self, settings: Settings, as_published, monkeypatch: pytest.MonkeyPatch
    ):
        archive = as_published(packed(SMALL))
        before = install(settings, archive)
        with monkeypatch.context() as patched:
            patched.setattr(ohif_package, "_point_to", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                install(settings, archive)
        assert installed(settings) == before and before.size > 0
        after = install(settings, archive)
        assert installed(settings) == after and not before.pages.exists()

    def test_lies_in_the_data_folder_of_the_user_unless_settings_name_another(self, settings: Settings):
        without = settings.model_copy(update={"serve": settings.serve.model_copy(update={"viewer_folder": None})})
        ending = Path("dicom-assets", "viewer")
        assert folder_of(without, {"XDG_DATA_HOME": "/data"}, "linux") == Path("/data") / ending
        assert folder_of(without, {}, "linux") == Path.home() / ".local/share" / ending
        assert folder_of(without, {}, "darwin") == Path.home() / "Library/Application Support" / ending
        assert folder_of(without, {"LOCALAPPDATA": "/local"}, "win32") == Path("/local") / ending

    def test_without_npm_and_registry_is_not_fetched_and_it_is_said_what_to_do(self):
        with (
            pytest.raises(ViewerError, match=r"no `npm` command.*--registry.*--from"),
            ohif_package.fetched(None, {"PATH": "/nowhere"}),
        ):
            pass


class TestPages:
    def test_say_the_command_until_it_is_installed_and_are_there_without_a_restart(
        self, retrievable, as_published, tmp_path: Path
    ):
        serve = retrievable.settings.serve.model_copy(update={"viewer_folder": str(tmp_path / "viewer")})
        lake = type(retrievable)(retrievable.settings.model_copy(update={"serve": serve}), retrievable.landing)
        some = lake.client()
        assert some.get("/ohif/").status_code == 404 and "dicom-assets viewer install" in some.get("/ohif/").text
        assert [name for name, _ in viewers_of(lake.settings, "", "1.2")] == ["Viewer"]
        install(lake.settings, as_published(packed(SMALL)))
        assert viewers_of(lake.settings, "/x", "1.2")[1] == ("OHIF", "/x/ohif/viewer?StudyInstanceUIDs=1.2")
        self.look(some)

    def look(self, some: TestClient) -> None:
        page = some.get("/ohif")
        assert page.url.path == "/ohif/" and page.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "<script>" not in page.text and 'src="./app.bundle' in page.text
        assert 'src="../app.bundle' in some.get("/ohif/viewer/lake?StudyInstanceUIDs=1.2").text
        assert "unsafe-eval'" not in page.headers["content-security-policy"].replace("wasm-unsafe-eval", "")
        script = some.get("/ohif/app.bundle.0123456789abcdef.js")
        assert "immutable" in script.headers["cache-control"] and "javascript" in script.headers["content-type"]
        assert "window.config" in some.get("/ohif/app-config.js").text
        assert "window.config" not in some.get("/ohif/%2e%2e/ohif.json").text


@contextmanager
def registry(archive: bytes) -> Iterator[str]:
    """A registry of npm that has this one package; its address."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".tgz"):
                body = archive
            else:
                assert self.path == f"/@ohif%2fapp/{ohif_package.VERSION}"
                body = json.dumps({"dist": {"tarball": f"http://{self.headers['Host']}/app.tgz"}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


_DRAWN = """() => {
    const viewport = window.cornerstone?.getEnabledElements()[0]?.viewport;
    const image = viewport?.getCornerstoneImage?.();
    return image ? {id: viewport.getCurrentImageId(), values: Array.from(image.voxelManager.getScalarData())} : null;
}"""


@pytest.mark.slow
@needs_browser
@pytest.mark.skipif(not ohif.PAGES.is_dir(), reason=ohif.HOW)
def test_it_is_installed_opens_a_study_with_its_values_and_is_removed(
    tmp_path: Path, as_published, monkeypatch: pytest.MonkeyPatch
):
    lake = viewable.make(tmp_path)
    toml = f'[serve]\nviewer_folder = "{tmp_path / "viewer"}"\n'
    (tmp_path / "own.toml").write_text(toml)
    monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(tmp_path / "own.toml"))
    files = {f"package/dist/{one.relative_to(ohif.PAGES)}": one for one in ohif.PAGES.rglob("*") if one.is_file()}
    archive = packed({name: one.read_bytes() for name, one in files.items()})
    as_published(archive)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(command_line, ["viewer", *arguments])
        return done.exit_code, done.stdout

    assert run("status")[0] == 1
    with registry(archive) as address:
        assert run("install", "--registry", address)[0] == 0
    code, said = run("status")
    assert code == 0 and said.startswith(f"OHIF {ohif_package.VERSION} lies in {tmp_path / 'viewer'}")
    with serving(lake.settings, tmp_path / "server", toml=toml) as server, chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        refused: list[str] = []
        page.on("console", lambda said: refused.append(said.text) if "Content Security" in said.text else None)
        page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
        page.goto(f"{server.url}/ohif/viewer?StudyInstanceUIDs={uid(1)}")
        page.wait_for_selector("canvas", timeout=PATIENCE)
        for _ in range(PATIENCE // 200):
            if (drawn := page.evaluate(_DRAWN)) is not None:
                break
            page.wait_for_timeout(200)
        shot(page, "ohif")
        place = int(drawn["id"].partition("/instances/")[2].partition("/")[0].rpartition(".")[2])
        assert np.array_equal(np.array(drawn["values"]), viewable.stored(place).ravel().astype(float) - 1024)
        assert "Canary" not in page.title() and [one for one in refused if "thumbnail" not in one] == []
    assert run("remove")[0] == 0 and run("status")[0] == 1
    assert list((tmp_path / "viewer").iterdir()) == []
