"""Split the training part of CIFAR-10 to choose by: python split.py cifar10.tar.xz cifar10-validation.tar

Of each class every tenth image, in the order of the archive, becomes ``test``: 45,000 to train, 5,000 to choose by. The
archive's own test images are left out.
"""

from __future__ import annotations

import sys
import tarfile
from collections import Counter


def main(source: str, target: str) -> None:
    seen: Counter[str] = Counter()
    with tarfile.open(source) as images, tarfile.open(target, "w") as split:
        for member in images:
            part, *rest = member.name.removeprefix("./").split("/")
            if not member.isfile() or part != "train":
                continue
            seen[rest[0]] += 1
            member.name = "/".join(["test" if seen[rest[0]] % 10 == 0 else "train", *rest])
            split.addfile(member, images.extractfile(member))
    print(", ".join(f"{name} {count}" for name, count in sorted(seen.items())))


if __name__ == "__main__":
    main(*sys.argv[1:])
