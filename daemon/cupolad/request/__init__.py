"""Validation of a build request: every rule that can be told before anything is taken.

Pure but for the store, which is asked whether the inputs are there.  Each refusal names the field,
the index and the rule.  The result is a type that later steps trust and never check again.
"""

from __future__ import annotations

from cupola.messages import BuildRequest
from cupolad.paths import SandboxPath
from cupolad.request import places, presence, values
from cupolad.request.model import Inputs, Policy, RequestLimits, ValidRequest

__all__ = ["Inputs", "Policy", "RequestLimits", "ValidRequest", "validate"]


def validate(
    request: BuildRequest, limits: RequestLimits, policy: Policy, store: Inputs
) -> ValidRequest:
    """Check `request` completely; RequestError at the first rule that it breaks. Blocks."""
    values.check_counts(request, limits)
    values.check_constraints(request, policy)
    scratch = places.parse_sorted_paths("scratch_paths", request.scratch_paths, SandboxPath)
    outputs = places.parse_paths("outputs", request.outputs, SandboxPath)
    inputs_dir = places.parse_path("inputs_dir", None, request.inputs_dir, SandboxPath)
    places.check_scratch(scratch)
    places.check_inputs_dir(request, inputs_dir, scratch)
    places.check_outputs(outputs, scratch, inputs_dir, request.inputs)
    places.check_additional_files(request, scratch, inputs_dir)
    values.check_command(request, limits)
    values.check_environment(request, limits)
    values.check_needles(request, limits)
    places.check_ro_paths(request, policy, scratch, inputs_dir)
    places.check_working_dir(request, scratch, inputs_dir, store)
    presence.check_presence(request, store)
    return ValidRequest(request, inputs_dir, scratch, outputs)
