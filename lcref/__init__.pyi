from . import choice as choice
from . import composition as composition
from . import compressions as compressions
from . import data as data
from . import inference as inference
from . import inputs as inputs
from . import lc as lc
from . import lsteps as lsteps
from . import nets as nets
from . import parts as parts
from . import plots as plots
from . import projections as projections
from . import storage as storage
from . import sweep as sweep
from . import text as text
from . import tolerance as tolerance
from . import verify as verify
from .composition import DescentError as DescentError
from .compressions import (Binary as Binary, Compression as Compression, Each as Each,
                           LowRank as LowRank, PowersOfTwo as PowersOfTwo, Prune as Prune,
                           Quantize as Quantize, Round as Round, Sum as Sum, Task as Task,
                           Ternary as Ternary)
from .lc import (Result as Result, Schedule as Schedule, Step as Step, compress as compress,
                 direct_compression as direct_compression, iterate as iterate)
from .text import parse as parse, parse_task as parse_task

__version__: str

__all__ = ["Binary", "Compression", "DescentError", "Each", "LowRank", "PowersOfTwo", "Prune",
           "Quantize", "Result", "Round", "Schedule", "Step", "Sum", "Task", "Ternary", "compress",
           "direct_compression", "iterate", "parse", "parse_task", "projections", "verify"]
