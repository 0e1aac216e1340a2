# SPDX-License-Identifier: LGPL-2.1-or-later
"""Manufacturers of BMCs, by their number in IANA's registry of Private Enterprise Numbers."""

from collections.abc import Mapping
from types import MappingProxyType

MANUFACTURERS: Mapping[int, str] = MappingProxyType(
    {
        2: "IBM",
        11: "Hewlett-Packard",
        42: "Sun Microsystems",
        94: "Nokia",
        107: "Bull",
        116: "Hitachi",
        119: "NEC",
        186: "Toshiba",
        193: "Ericsson",
        343: "Intel",
        373: "Tatung",
        399: "Hitachi",
        674: "Dell",
        2011: "Huawei",
        4337: "RadiSys",
        4413: "Broadcom",
        4769: "IBM",
        5771: "Cisco",
        6569: "Inventec",
        6653: "Tyan",
        7154: "IPMI forum",
        7244: "Quanta",
        9237: "Viking",
        10297: "Advantech",
        10368: "Fujitsu",
        10418: "Avocent",
        10437: "Peppercon",
        10876: "Supermicro",
        11102: "OSA",
        11129: "Google",
        11183: "Mitac",
        12634: "PICMG",
        13742: "Raritan",
        15000: "Kontron",
        19046: "Lenovo",
        20301: "IBM",
        20569: "Inventec",
        20974: "AMI",
        21317: "ATEN",
        24339: "ADLINK",
        33049: "Mellanox",
        37945: "Inspur",
        40981: "Facebook",
        42817: "IBM",
        47196: "HPE",
        47488: "Supermicro",
        48482: "Linaro",
        48512: "Inspur",
        49622: "ASRock Rack",
        49769: "YADRO",
        51974: "Raptor",
        52538: "Ampere",
    }
)
"""Manufacturer IDs of common BMCs."""


def manufacturer_name(number: int) -> str:
    """Return the name of a Manufacturer ID; 0 is unspecified, FFFFFh is reserved."""
    return MANUFACTURERS.get(number) or ("unspecified" if number in (0, 0xFFFFF) else f"manufacturer {number}")
