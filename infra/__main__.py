"""Entry point of `pulumi up` and `pulumi preview`."""

import pulumi
from penstock import ConfigErrors

from infra.program import main

try:
    main()
except ConfigErrors as errors:
    raise pulumi.RunError(str(errors)) from None  # shown without a traceback: there is nothing wrong with the program
