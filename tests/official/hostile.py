"""Pickles that would do harm: each with what the reader's refusal must say."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

from lit_gans.official.writer import storage_bytes

PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """GLOBAL, arguments, REDUCE."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def stack_call(module: str, name: str, *arguments: bytes) -> bytes:
    """The same by STACK_GLOBAL, of protocol 4."""
    return text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR"


def release(value: bytes) -> bytes:
    """The value as the file's generator."""
    return b"\x80\x04}" + text("G_ema") + value + b"s."


def module(state: bytes, *, source: str = "", name: str = "Generator") -> bytes:
    """A module in the releases' layout, whose attributes are the dictionary `state`."""
    fields = {"type": text("class"), "version": b"K\x06", "module_src": text(source), "class_name": text(name)}
    entries = b"".join(text(key) + value for key, value in {**fields, "state": state}.items())
    return PERSISTENT + b"(}(" + entries + b"utR"


def tensor(storage: bytes, size: int, stride: int = 1) -> bytes:
    numbers = b"K\x00" + b"(" + long(size) + b"t" + b"(" + long(stride) + b"t"
    return call("torch._utils", "_rebuild_tensor_v2", storage, numbers, b"\x89", call("collections", "OrderedDict"))


def storage(data: bytes) -> bytes:
    return call("torch.storage", "_load_from_bytes", binary(data))


def binary(data: bytes) -> bytes:
    return b"\x8e" + struct.pack("<Q", len(data)) + data


def long(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def with_buffer(value: bytes) -> bytes:
    """A module with the value for a buffer."""
    return module(b"}" + text("_buffers") + b"}" + text("b") + value + b"ss")


def globals_named(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """What could run code if the global were the real one."""
    command, code = text(f"touch {sentinel}"), text(f"open({str(sentinel)!r}, 'w').close()")
    touch = text(str(sentinel))
    marshalled = binary(b"c\x00")
    attacks = {
        "os.system": call("os", "system", command),
        "posix.system": stack_call("posix", "system", command),
        "nt.system": call("nt", "system", command),
        "subprocess.Popen": call("subprocess", "Popen", text("touch"), touch),
        "builtins.eval": stack_call("builtins", "eval", code),
        "builtins.exec": call("builtins", "exec", code),
        "__builtin__.eval": call("__builtin__", "eval", code),
        "builtins.compile": call("builtins", "compile", code, text("x"), text("exec")),
        "builtins.__import__": call("builtins", "__import__", text("os")),
        "builtins.getattr": call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system")),
        "builtins.open": call("builtins", "open", touch, text("w")),
        "webbrowser.open": call("webbrowser", "open", text(f"file://{sentinel}")),
        "importlib.import_module": call("importlib", "import_module", text("os")),
        "importlib._bootstrap._call_with_frames_removed": call(
            "importlib._bootstrap", "_call_with_frames_removed", call("builtins", "exec", code)
        ),
        "torch.load": call("torch", "load", touch),
        "torch.hub.load": call("torch.hub", "load", text("owner/name"), text("model")),
        "torch.jit.load": call("torch.jit", "load", touch),
        "operator.attrgetter": call("operator", "attrgetter", text("system")),
        "operator.methodcaller": call("operator", "methodcaller", text("system"), command),
        "functools.partial": call("functools", "partial", b"cos\nsystem\n", command),
        "copyreg._reconstructor": call("copyreg", "_reconstructor", b"cos\nsystem\n", b"cbuiltins\nobject\n", b"N"),
        "copy_reg.add_extension": call("copy_reg", "add_extension", text("os"), text("system"), b"K\x01"),
        "types.FunctionType": call("types", "FunctionType", call("marshal", "loads", marshalled), b"}"),
        "types.CodeType": call("types", "CodeType", b"K\x00"),
        "marshal.loads": call("marshal", "loads", marshalled),
        "pickle.loads": call("pickle", "loads", binary(b"cos\nsystem\n.")),
        "runpy.run_path": call("runpy", "run_path", touch),
        "pathlib.Path": call("pathlib", "Path", touch),
        "numpy.load": call("numpy", "load", touch, b"\x88"),
        "torch_utils.persistence.import_hook": call("torch_utils.persistence", "import_hook", b"cos\nsystem\n"),
        "torch_utils.persistence._src_to_module": call("torch_utils.persistence", "_src_to_module", code),
        "collections.abc:Mapping.__init__.__globals__": stack_call("collections", "abc:Mapping.__init__.__globals__"),
        "collections.OrderedDict.__init__": stack_call("collections", "OrderedDict.__init__"),
        "torch.Size.__class__": stack_call("torch", "Size.__class__"),
    }
    # Refused at the first global that is not known, which lies innermost.
    inner = {
        "builtins.getattr": "builtins.getattr", "types.FunctionType": "types.FunctionType",
        "collections.abc:Mapping.__init__.__globals__": "collections.abc:Mapping",
        "importlib._bootstrap._call_with_frames_removed": "importlib._bootstrap",
    }  # fmt: skip
    named = {name: (release(value), f"asks for {inner.get(name, name)}") for name, value in attacks.items()}
    return named | {
        "in a module's buffers": (release(with_buffer(attacks["os.system"])), "asks for os.system"),
        "in a storage": (release(with_buffer(storage(b"\x80\x02" + attacks["os.system"] + b"."))), "for os.system"),
        "behind a good network": (release(module(b"}") + attacks["os.system"] + b"0"), "asks for os.system"),
    }


def instructions(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Instructions that name things by other ways, or set attributes."""
    command = text(f"touch {sentinel}")
    function, ordered = b"ctorch\nSize\n", call("collections", "OrderedDict")
    setstate = b"}" + text("__setstate__") + function + b"s"
    tf = b"cdnnlib.tflib.network\nNetwork\n)\x81"
    return {
        "INST": (release(b"(" + command + b"ios\nsystem\n"), "instruction INST"),
        "OBJ": (release(b"(" + function + command + b"o"), "instruction OBJ"),
        "EXT1": (release(b"\x82\x01"), "instruction EXT1"),
        "EXT2": (release(b"\x83\x01\x00"), "instruction EXT2"),
        "EXT4": (release(b"\x84\x01\x00\x00\x00"), "instruction EXT4"),
        "PERSID": (release(b"Pos.system\n"), "instruction PERSID"),
        "BINPERSID": (release(text("os.system") + b"Q"), "persistent id"),
        "NEWOBJ of a function": (release(function + b")\x81"), "makes an object of torch.Size"),
        "NEWOBJ_EX": (release(b"ccollections\nOrderedDict\n)}\x92"), "instruction NEWOBJ_EX"),
        "NEXT_BUFFER": (release(b"\x97"), "instruction NEXT_BUFFER"),
        "BUILD of a function": (release(function + setstate + b"b"), "sets attributes of a Function"),
        "BUILD of a class by slots": (
            release(b"ccollections\nOrderedDict\nN" + setstate + b"\x86b"), "sets attributes of a Function",
        ),
        "BUILD of a dictionary": (release(ordered + setstate + b"b"), "sets attributes of a dict"),
        "BUILD of a module": (release(module(b"}") + setstate + b"b"), "sets attributes of a _Module"),
        "BUILD of a network": (release(tf + b"}" + text("__class__") + function + b"sb"), "sets '__class__'"),
        "BUILD of a network's __reduce__": (release(tf + b"}" + text("__reduce__") + function + b"sb"), "'__reduce__'"),
        "BUILD of an array's type": (
            release(call("numpy", "dtype", text("f4")) + b"(K\x03" + text("|") + text("O") + b"NNtb"), "no plain",
        ),
        "a call of text": (release(text("os.system") + b"(" + command + b"tR"), "calls a str"),
        "a tuple for a key": (release(b"}" + b"N" + b"\x85" * 60 + b"Ns"), "tuple is the key"),
        "a mark for a value": (release(b"(\x85"), "mark for a value"),
        "an empty stack": (b"\x80\x04R.", "empty stack"),
        "a value never kept": (release(b"h\x07"), "never kept"),
    }  # fmt: skip


def claims() -> dict[str, tuple[bytes, str]]:
    """Files that claim more than they hold, that are damaged, or that never end."""
    import torch

    good = storage_bytes(torch.zeros(4))
    huge = good.replace(long(4) + b"N", long(2**40) + b"N")
    assert huge != good
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(2**24))
    deep = b"]" * 100_000 + b"a" * 99_999
    loop = b"}q\x01" + text("_modules") + b"}" + text("m")  # a module whose state holds the module itself
    endless = module(loop + call("collections", "OrderedDict") + b"ss")
    many = b"]" + tensor(storage(good), 4) + b"q\x02" + b"a"
    swelling = binary(storage_bytes(torch.zeros(2000))) + b"q\x050" + b"]"
    swelling += b"".join(b"ctorch.storage\n_load_from_bytes\nh\x05\x85Ra" for _ in range(4))
    dtype = call("numpy", "dtype", text("f8"))
    array = call("numpy.core.numeric", "_frombuffer", binary(bytes(8)), dtype, b"(" + long(2**40) + b"t", text("C"))
    kwargs = module(b"}" + text("_init_kwargs") + b"}" + text("a") + deep + b"ss")
    whole = release(with_buffer(tensor(storage(good), 4)))
    return {
        "BINBYTES8": (release(b"\x8e" + struct.pack("<Q", 2**40) + b"x"), "damaged"),
        "BINBYTES8 beyond any address": (release(b"\x8e" + b"\xff" * 8), "damaged"),
        "BINUNICODE8": (release(b"\x8d" + struct.pack("<Q", 2**40)), "damaged"),
        "LONG4": (release(b"\x8b" + struct.pack("<i", 2**31 - 1)), "damaged"),
        "LONG in digits": (release(b"L" + b"9" * 10_000 + b"L\n"), "damaged"),
        "FRAME": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", "not a dictionary"),
        "a storage of 2^40": (release(with_buffer(tensor(storage(huge), 4))), "claims 1099511627776 elements"),
        "a tensor of 2^40": (release(with_buffer(tensor(storage(good), 2**40))), "beyond its storage"),
        "a tensor of 2^40 by stride 0": (release(with_buffer(tensor(storage(good), 2**40, 0))), "beyond its storage"),
        "a tensor beyond its storage": (release(with_buffer(tensor(storage(good), 2, 4))), "beyond its storage"),
        "a negative size": (release(with_buffer(tensor(storage(good), -1))), "no shape"),
        "an array of 2^40": (release(with_buffer(array)), "claims 1099511627776 elements"),
        "an array of objects": (release(with_buffer(call("numpy", "dtype", text("O8")))), "has the type 'O8'"),
        "an archive that swells": (release(with_buffer(storage(archive.getvalue()))), "is an archive"),
        "a storage again and again": (b"\x80\x04" + swelling + b".", "more bytes"),
        "values too deep": (release(kwargs), "too deep"),
        "lists too deep": (b"\x80\x04" + deep + b".", "not a dictionary"),
        "modules that are none": (release(endless), "not a _Module"),
        "no module": (release(many), "holds no network"),
        "a module of a later version": (release(module(b"}").replace(b"K\x06", b"K\x07")), "version 7"),
        "a name with a dot": (
            release(module(b"}" + text("_buffers") + b"}" + text("a.b") + tensor(storage(good), 4) + b"ss")),
            "no name of a tensor",
        ),
        "cut off": (whole[:-40], "damaged"),
        "cut off in a storage": (release(with_buffer(storage(good[:-1]))), "not there"),
        "nothing": (b"", "damaged"),
        "text": (b"<html>404</html>", "damaged"),
        "a number": (b"\x80\x04K\x01.", "not a dictionary"),
    }  # fmt: skip


def nested(count: int, *, closed: bool) -> bytes:
    """A module in a module in a module, by reference; `closed`: with the end of each."""
    start = b"ctorch.nn.modules.container\nSequential\nq\x000" + text("_modules") + b"q\x010" + text("0") + b"q\x020"
    return start + b"h\x00)\x81}h\x01}h\x02" * count + b"N" + b"ssb" * (count * closed)


def by_reference(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """What names classes of networks, or what dill writes of functions, to other ends."""
    system = call("os", "system", text(f"touch {sentinel}"))
    linear, modules = b"ctorch.nn.modules.linear\nLinear\n", b"}" + text("_modules") + b"}"
    module = linear + b")\x81q\x01" + modules  # to be gone on with its own modules, and ended by b"sb"
    shared = module + b"sb"  # the innermost of modules that all hold the next one twice
    for _ in range(40):
        shared += b"q\x050" + module + b"(" + text("a") + b"h\x05" + text("b") + b"h\x05usb"
    code = call("dill._dill", "_create_code", b"K\x00", b"K\x00", binary(b"d\x00S\x00"), b")", text(str(sentinel)))
    function = call("dill._dill", "_create_function", code, b"}", text("hook"))
    inert = "holds no network"
    named = {
        "dill._dill._unmarshal": (binary(b"c\x00"),), "dill._dill._eval_repr": (text("print(1)"),),
        "dill._dill._import_module": (text("os"),), "dill._dill._get_attr": (text("os"), text("system")),
        "dill._dill._create_filehandle": (text(str(sentinel)), text("w")), "timmy.models.Linear": (),
        "torch.nnx.Linear": (), "torch.nn_utils.Linear": (), "training_loop.Linear": (),
    }  # fmt: skip
    refused = {name: (release(call(*name.rsplit(".", 1), *given)), f"asks for {name}") for name, given in named.items()}
    return refused | {
        "a dotted name of a known package": (release(stack_call("torch.nn", "modules.os.system")), "asks for torch.nn"),
        "a name in two lines": (release(stack_call("torch.nn", "Linear\n")), "asks for torch.nn"),
        "a long name": (release(stack_call("torch.nn", "a" * 10_000)), "asks for torch.nn"),
        "a call in a class's arguments": (release(linear + b"(" + system + b"tR"), "asks for os.system"),
        "a call in a module's state": (release(module + b"s" + text("x") + system + b"sb"), "asks for os.system"),
        "a class that is called": (release(linear + b"(" + text(str(sentinel)) + b"tR"), inert),
        "a code object": (release(code), inert),
        "a function of a code object": (release(function), inert),
        "a call of such a function": (release(function + b")R"), "calls a _Object"),
        "a call with many arguments": (release(linear + b"(" + b"N" * 10**5 + b"tR"), "with 100000 arguments"),
        "entries of a module": (release(module + b"sb" + text("a") + b"Ns"), "adds an entry to a _Object"),
        "a state that is none": (release(module + text("a") + linear + b")\x81]bssb"), "state is a list, not a dict"),
        "a module in itself by reference": (release(module + text("m") + b"h\x01ssb"), "or in themselves"),
        "modules shared again and again": (release(shared), "more than 100000 modules"),
        "a million modules": (release(nested(10**6, closed=False)), "more than 1000000 containers"),
        "modules too deep": (release(nested(10**5, closed=True)), "more than 64 deep"),
    }  # fmt: skip


def attacks(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """The file's bytes, and what its refusal says, by name; whatever runs makes the file `sentinel`."""
    return globals_named(sentinel) | instructions(sentinel) | claims() | by_reference(sentinel)
