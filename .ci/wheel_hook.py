"""A wheel that carries compiled kernels is one for this Python and this kind of machine."""

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard" and (Path(self.root) / "pipeline" / "kernels" / "compiled").is_dir():
            machine = sysconfig.get_platform().rpartition("-")[2]
            build_data["pure_python"] = False
            build_data["tag"] = f"cp{sys.version_info.major}{sys.version_info.minor}-none-manylinux_2_17_{machine}"
