"""A checkpoint's manifest as checkpoints/FORMAT.md describes it, by other code than the program's."""
import ctypes
import ctypes.util
import json
import os

import h5py

BLOCK = 1 << 20
LIBRARY = ctypes.CDLL(ctypes.util.find_library("xxhash"))
LIBRARY.XXH3_64bits.argtypes, LIBRARY.XXH3_64bits.restype = (
    [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_uint64)


def xxh3(content):
    return f"{LIBRARY.XXH3_64bits(content, len(content)):016x}"


def block_hashes(content):
    return [xxh3(content[at:at + BLOCK]) for at in range(0, len(content), BLOCK)]


def describe(state):
    """The members files, hashes and places of a manifest for this state.h5."""
    places = {}
    with h5py.File(state, "r") as file:
        def look(name, item):
            if isinstance(item, h5py.Dataset):
                places["/" + name] = [item.id.get_offset() or 0, item.id.get_storage_size()]
        file.visititems(look)
    with open(state, "rb") as file:
        content = file.read()
    rest, at = b"", 0
    for offset, size in sorted(places.values()):
        if size:
            rest, at = rest + content[at:offset], offset + size
    rest += content[at:]
    return {"files": {"state.h5": {"bytes": len(content), "structure": xxh3(rest)}},
            "block_bytes": BLOCK, "places": places,
            "hashes": {name: block_hashes(content[offset:offset + size])
                       for name, (offset, size) in places.items()}}


def text_of(manifest):
    """The bytes of MANIFEST.json with a right checksum."""
    manifest = {key: value for key, value in manifest.items() if key != "checksum"}
    body = json.dumps(manifest, indent=1)[:-2].encode()
    return body + f',\n "checksum": "{xxh3(body)}"\n}}\n'.encode()


def load(folder):
    with open(os.path.join(folder, "MANIFEST.json"), encoding="utf-8") as file:
        return json.load(file)


def write(folder, **changes):
    """Makes the manifest of a folder fit its state.h5 as it is now, but for what is given."""
    manifest = {**load(folder), **describe(os.path.join(folder, "state.h5"))}
    manifest.update(changes)
    with open(os.path.join(folder, "MANIFEST.json"), "wb") as file:
        file.write(text_of(manifest))
