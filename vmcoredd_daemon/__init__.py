# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps (``NT_VMCOREDD``) from userspace into the vmcore that kdump saves."""

__version__ = "0.2.0"
