"""A parameter that an address does not take is a slip of the pen, and is said so."""

from fastapi import HTTPException, Request

from recsys.errors import nearest


async def no_unknown_parameter(request: Request) -> None:
    """Refuse a request that names a parameter which its route does not know."""
    allowed = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in allowed:
            hint = nearest(name, allowed) if allowed else "this address takes none"
            raise HTTPException(422, f"there is no parameter {name!r}; {hint}")
