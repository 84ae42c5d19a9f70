"""What the daemon relies on, over real NFS between two hosts of a user-mode Linux kernel."""

from pathlib import Path

import pytest

from drawing import face_bytes
from nfs.machine import run_in_machine
from nfs.two_daemons import PICTURES
from weights_for_tests import write_tiny_weights

pytestmark = pytest.mark.timeout(900)  # a machine within a machine is slow, and slower on a slow one


def test_the_lock_holds_between_hosts_and_what_else_nfs_does(tmp_path: Path) -> None:
    facts = run_in_machine("lock_facts.py", tmp_path)
    assert facts["a takes"] == "held"
    for moment in ("b meanwhile", "b while a is newly cut off"):
        assert " on host-a (lock file /run/nfs/inbox/.maskdrop.lock); stop that daemon" in facts[moment]
    assert facts["b after a's death"] == facts["a again"] == "held", "a lock outlives its holder"
    # The server gives up on a host it doesn't hear of. Which finds out as soon as it asks, and gets it back.
    assert facts["b while a is cut off"] == "held"
    assert "is held by" in facts["a back on the network"]
    assert facts["a when b has let go"] == "still held"
    assert "is held by" in facts["b after that"]
    assert facts["local locks"] == ["held", "held"], "nolock is not as bad as docs/several-daemons.md says"

    assert facts["rename"] == "False three two", "renames: no RENAME_NOREPLACE, and nothing replaced"
    assert facts["lease where the server lends files"] == "granted / none"
    assert facts["lease where it lends none"] == "Resource temporarily unavailable / unknown"
    assert facts["events on a"] == "from-a.jpg", "events of other hosts' changes"
    assert facts["removed while open"] == "1 .nfs 0", "the client's own .nfs… is no picture"
    assert facts["sizes before and after opening"] == "5 10", "attributes are cached"
    assert "can't be written (Permission denied)" in facts["root squashed"]

    (disk, lock), (_, local_lock) = facts["doctor"], facts["doctor, local locks"]
    assert disk[:2] == ["network disks", "warning"]
    assert "inbox is on nfs4 (10.7.1.1:/)" in disk[2]
    assert disk[3].startswith("watch.polling = true")
    assert lock[1] == "ok"
    assert local_lock[1] == "warning"
    assert "local_lock=all" in local_lock[2]


def test_two_daemons_and_a_dispatcher_do_each_picture_once(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "tiny.safetensors")
    (tmp_path / "pictures").mkdir()
    for number in range(PICTURES):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(face_bytes(number))
    facts = run_in_machine("two_daemons.py", tmp_path, "2G")
    names = [f"{number}.jpg" for number in range(PICTURES)]
    archived = facts["archived"]
    assert sorted(archived["a"] + archived["b"]) == facts["results"] == names
    assert archived["a"], "host a did nothing"
    assert archived["b"], "host b did nothing"
    assert facts["left"] == []
    assert facts["exit codes"] == [0, 0, 0]
