"""A copied card holds what the card holds, and leads nowhere into the machine that it was copied from."""

from __future__ import annotations

import os
from pathlib import Path

from harness.targets.local_copy import copy_card


def test_a_card_is_copied_without_what_is_in_memory(tmp_path: Path) -> None:
    card, copy = tmp_path / "one", tmp_path / "two"
    for path in (
        "etc/identity/key.pem",
        "usr/bin/release",
        "run/token",
        "proc/boot_id",
        "var/log/agent.log",
        "opt/tool",
    ):
        (card / path).parent.mkdir(parents=True, exist_ok=True)
        (card / path).write_text(path)
    (card / "etc/identity/key.pem").chmod(0o600)
    (card / "etc/identity").chmod(0o700)
    (card / "usr/bin/release").chmod(0o755)
    (card / "current").symlink_to(card / "usr/bin/release")
    (card / "near").symlink_to("usr/bin/release")
    (card / "far").symlink_to("/usr/bin/env")
    (card / "folder").symlink_to(card / "usr")
    copy_card(card, copy)
    files = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {"etc/identity/key.pem", "usr/bin/release"}
    assert (copy / "etc/identity/key.pem").stat().st_mode & 0o777 == 0o600
    assert (copy / "etc/identity").stat().st_mode & 0o777 == 0o700
    assert (copy / "usr/bin/release").stat().st_mode & 0o777 == 0o755
    assert os.readlink(copy / "current") == str(copy / "usr/bin/release")
    assert os.readlink(copy / "near") == "usr/bin/release"
    assert os.readlink(copy / "far") == "/usr/bin/env"
    assert os.readlink(copy / "folder") == str(copy / "usr")
