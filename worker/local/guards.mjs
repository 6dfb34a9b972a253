// Python that runs before the Worker's own: the module search path of Cloudflare's runtime, and the
// refusals of its global scope that JavaScript cannot make (a JavaScript error inside a system call
// would end the interpreter).

export const PREPARE = `
import os
import random
import site
import sys
import _random
from functools import wraps

_requests = False


def _refuse(name):
    raise OSError(29, name + " is not available while the Worker is imported: call it in a handler")


def _until_requests(name, function):
    @wraps(function)
    def guarded(*args, **kwargs):
        if not _requests:
            _refuse(name)
        return function(*args, **kwargs)

    return guarded


_urandom = os.urandom
os.urandom = random._urandom = _until_requests("os.urandom()", _urandom)

_seed = _random.Random.seed


@wraps(_seed)
def _guarded_seed(self, *args):
    if not _requests and (not args or args[0] is None):
        _refuse("random.seed()")
    return _seed(self, *args)


_random.Random.seed = _guarded_seed

# The generator behind random.random() and its like was seeded with a constant.
_shared = {
    name: value
    for name, value in vars(random).items()
    if not name.startswith("_") and getattr(value, "__self__", None) is random._inst
}
for _name, _value in _shared.items():
    setattr(random, _name, _until_requests("random." + _name + "()", _value))


def begin_requests():
    global _requests
    _requests = True
    os.urandom = random._urandom = _urandom
    _random.Random.seed = _seed
    vars(random).update(_shared)
    random.seed()


_modules = "/session/metadata/python_modules"
sys.path = [path for path in sys.path if path]
_before = next(i for i, path in enumerate(sys.path) if "site-packages" in path)
sys.path.insert(_before, _modules)
sys.path.append("/session/metadata")
site.addsitedir(_modules)
`;

export const DISPATCH = `
from inspect import isawaitable
from workers import Request, Response, python_to_rpc
from pyodide.ffi import JsProxy


def _to_javascript(result):
    if isinstance(result, JsProxy):
        return result
    if isinstance(result, Response):
        return result.js_object
    return python_to_rpc(result)


async def fetch(entrypoint, ctx, env, request):
    result = entrypoint(ctx, env).fetch(Request(request))
    if isawaitable(result):
        result = await result
    return _to_javascript(result)


async def scheduled(entrypoint, ctx, env, controller):
    instance = entrypoint(ctx, env)
    result = instance.scheduled(controller, instance.env, instance.ctx)
    if isawaitable(result):
        await result
`;
