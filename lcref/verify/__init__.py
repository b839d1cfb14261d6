"""Judge an implementation of the projections: a certificate, or the smallest input that is wrong.

`check` tries a function against the properties of its kind, `certify` judges one real result at
full size, `conforms` makes a pytest test of every property, and `vectors` holds cases for other
languages.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
