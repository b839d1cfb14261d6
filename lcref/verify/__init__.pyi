from . import mutants as mutants, oracles as oracles, peers as peers, vectors as vectors
from .certificates import Certificate as Certificate, certify as certify
from .checking import (check as check, of_program as of_program,
                       property_names as property_names)
from .elsewhere import on_device as on_device
from .plugin import conforms as conforms
from .report import Report as Report, Result as Result

__all__ = ["Certificate", "Report", "Result", "certify", "check", "conforms", "mutants",
           "of_program", "on_device", "oracles", "peers", "property_names", "vectors"]
