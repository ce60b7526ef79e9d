#!/usr/bin/python3
# run: label unit
"""Checks the shape of src/ over its text: which folder may include which, where foreign libraries
may be used, that a file's name is unique, and that a public function's name gives its file.
Before that it checks itself: every kind of violation, planted in a small tree, must be found."""
import os
import re
import sys
import tempfile
from pathlib import Path

# folder: the folders that it may include besides itself
ARROWS = {
    "base": [],
    "linalg": ["base"],
    "comm": ["base"],
    "grid": ["base", "linalg", "comm"],
    "ortho": ["base", "linalg", "comm", "grid"],
    "nn": ["base", "linalg"],
    "data": ["base"],
    "ckpt": ["base", "comm"],
    "train": ["base", "linalg", "comm", "grid", "ortho", "nn", "data", "ckpt"],
    "app": ["base", "linalg", "comm", "grid", "ortho", "nn", "data", "ckpt", "train"],
}

# A library's headers and names, and the only folders or files that may use them.
DOORS = [
    ("MPI", r"<mpi\.h>|\bMPI_\w+", ["comm/", "grid/", "ckpt/"]),
    ("OpenBLAS or LAPACK",
     r"<(?:cblas|lapacke?|f77blas|openblas_config)\.h>|\b(?:cblas|openblas|LAPACKE)_\w+"
     r"|\b[sdcz][a-z0-9]{2,6}_(?=\s*\()", ["linalg/"]),
    ("ScaLAPACK or BLACS",
     r"\bp[sdcz][a-z0-9]{3,7}_(?=\s*\()|\bC\w*blacs\w*|\bblacs_\w+"
     r"|\b(?:numroc|descinit|indxg2[lp]|indxl2g|pilaenv)_(?=\s*\()", ["grid/"]),
    ("HDF5", r"<hdf5(?:_hl)?\.h>|\bH5[A-Z][A-Z]?[a-z_]\w*", ["ckpt/", "data/set_hdf5.c"]),
    ("libyaml", r"<yaml\.h>|\byaml_\w+", ["base/config.c"]),
]

# header: (prefix of its functions in place of bcop_<file>_, the reason)
PREFIXES = {
    "ortho/optimizer_kinds.h": ("bcop_optimizer_", "private half of optimizer.h, one family"),
}

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def without_comments(text):
    """Comments become as many newlines as they hold; strings stay (an include needs them)."""
    def blank(match):
        token = match.group()
        return "\n" * token.count("\n") + " " if token.startswith("/") else token
    return TOKEN.sub(blank, text)


def functions(header):
    """Names of the functions that a header declares or defines."""
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", header, flags=re.MULTILINE)
    text = re.sub(r'extern\s*"C"', "", text)
    while re.search(r"\{[^{}]*\}", text):
        text = re.sub(r"\{[^{}]*\}", ";", text)
    for statement in text.split(";"):
        statement = re.sub(r"__attribute__\s*\(\(.*\)\)", "", statement, flags=re.DOTALL)
        name = re.search(r"\b(\w+)\s*\(", statement)
        if name and "typedef" not in statement.split() and name.group(1) != "_Static_assert":
            yield name.group(1)


def check_file(path, code):
    folder = path.split("/")[0]
    if folder not in ARROWS:
        yield f"{path}: the folder {folder} has no place in the order of folders"
        return
    for number, line in enumerate(code.split("\n"), 1):
        include = re.match(r'\s*#\s*include\s*"([^"]*)"', line)
        if include:
            target = include.group(1)
            if not re.fullmatch(r"\w+/\w+\.h", target):
                yield f'{path}:{number}: "{target}" must be written "folder/file.h"'
            elif target.split("/")[0] not in ARROWS[folder] + [folder]:
                yield f'{path}:{number}: {folder}/ may not include "{target}"'
    no_strings = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', code)
    for library, pattern, allowed in DOORS:
        if not path.startswith(tuple(allowed)):
            for use in re.finditer(pattern, no_strings):
                number = no_strings.count("\n", 0, use.start()) + 1
                yield f"{path}:{number}: {library} ({use.group()}) belongs to {', '.join(allowed)}"


def check_names(path, code):
    prefix = PREFIXES.get(path, (f"bcop_{Path(path).stem}_",))[0]
    for name in functions(code):
        if not name.startswith(prefix):
            yield f"{path}: {name} does not start with {prefix}"


def check(root):
    """All violations under root/src, as lines for people."""
    violations, folder_of = [], {}
    src = root / "src"
    for file in sorted(p for p in src.rglob("*") if p.suffix in (".c", ".h")):
        path = file.relative_to(src).as_posix()
        code = without_comments(file.read_text(encoding="utf-8"))
        violations += check_file(path, code)
        if file.suffix == ".h":
            violations += check_names(path, code)
        first = folder_of.setdefault(file.stem, file.parent)
        if first != file.parent:
            violations.append(f"{path}: {first.relative_to(src)}/ has a file of that name too")
    return violations


CLEAN = {
    "base/status.h": """/* MPI_Comm and "nn/model.h" in a comment are fine */
        #define BCOP_TRY(call) do { call; } while (0)
        typedef enum bcop_status { BCOP_OK = 0 } bcop_status;
        typedef void (*bcop_visit)(int x);
        struct s { int (*open)(void); };
        bcop_status bcop_status_fail(const char *f, ...) __attribute__((format(printf, 1, 2)));
        static inline int bcop_status_good(int x) { if (x) { return 1; } return (0); }
        """,
    "base/config.c": "#include <yaml.h>\nyaml_parser_t p; const char *s = \"MPI_Init cblas_x\";\n",
    "comm/comm.h": '#include "base/status.h"\n#include <mpi.h>\nint bcop_comm_open(MPI_Comm c);\n',
    "linalg/product.c": "#include <cblas.h>\nextern void dgeqrf_(int *m);\n",
    "grid/pblas.c": "extern void psgemm_(int *m);\nextern int Csys2blacs_handle(int c);\n",
    "data/set_hdf5.c": "#include <hdf5.h>\nhid_t f(void) { return H5Fopen(0, 0, 0); }\n",
    "train/trainer.c": '#include "ckpt/store.h"\n#include "nn/model.h"\n',
}
# file, what is added to it, and what must be said
PLANTED = [
    ("base/a.c", '#include "linalg/product.h"\n', 'base/ may not include "linalg/product.h"'),
    ("nn/a.c", '\n#include "comm/comm.h"\n', 'nn/a.c:2: nn/ may not include "comm/comm.h"'),
    ("data/a.h", '  #  include "nn/model.h"\n', 'data/ may not include "nn/model.h"'),
    ("train/a.c", '#include "app/app.h"\n', 'train/ may not include "app/app.h"'),
    ("ckpt/a.c", '#include "ortho/stage.h"\n', 'ckpt/ may not include "ortho/stage.h"'),
    ("nn/a.c", '#include "model.h"\n', 'must be written "folder/file.h"'),
    ("nn/a.c", '#include "../comm/comm.h"\n', 'must be written "folder/file.h"'),
    ("extra/a.c", "int x;\n", "extra has no place"),
    ("nn/a.c", "#include <mpi.h>\n", "nn/a.c:1: MPI"),
    ("train/a.c", "/* c\n */ int x = MPI_SUCCESS;\n", "train/a.c:2: MPI (MPI_SUCCESS)"),
    ("nn/a.c", "#include <cblas.h>\n", "OpenBLAS"),
    ("ortho/a.c", "void f(void) { cblas_sgemm(0); }\n", "OpenBLAS or LAPACK (cblas_sgemm)"),
    ("ortho/a.c", "extern void sgesdd_(int *m);\n", "OpenBLAS or LAPACK (sgesdd_)"),
    ("linalg/a.c", "extern void pssyrk_(int *m);\n", "ScaLAPACK or BLACS (pssyrk_)"),
    ("ortho/a.c", "void f(void) { Cblacs_exit(1); }\n", "ScaLAPACK or BLACS (Cblacs_exit)"),
    ("app/a.c", "#include <hdf5.h>\n", "HDF5"),
    ("data/set_mnist.c", "int f(void) { return H5Fclose(1); }\n", "HDF5 (H5Fclose)"),
    ("app/a.c", "#include <yaml.h>\n", "libyaml"),
    ("base/option.c", "yaml_event_t e;\n", "libyaml (yaml_event_t)"),
    ("app/status.c", "int x;\n", "has a file of that name too"),
    ("nn/a.h", "int bcop_b_run(int x);\n", "bcop_b_run does not start with bcop_a_"),
    ("nn/a.h", "static inline int run(int x) { return x; }\n", "run does not start with bcop_a_"),
    ("nn/a.h", "struct s { int (*f)(int); };\n\nint *\nfree_it (int x);\n", "free_it does not"),
]


def write(src, path, text):
    (src / path).parent.mkdir(parents=True, exist_ok=True)
    (src / path).write_text(text, encoding="utf-8")


def check_self():
    with tempfile.TemporaryDirectory() as folder:
        src = Path(folder) / "src"
        for path, text in CLEAN.items():
            write(src, path, text)
        found = check(Path(folder))
        if found:
            return [f"self-check: a clean tree gives: {line}" for line in found]
        failures = []
        for path, text, wanted in PLANTED:
            write(src, path, text)
            found = check(Path(folder))
            if len(found) != 1 or wanted not in found[0]:
                failures.append(f"self-check: {text!r} in {path} gives {found}, not {wanted!r}")
            (src / path).unlink()
        return failures


def main():
    root = Path(os.environ.get("BCOP_SOURCE_DIR") or Path(__file__).resolve().parents[2])
    if not list((root / "src").glob("*/*.h")):
        print(f"{root}/src has no headers")
        return 1
    gone = [f"{path}: in this test's table of exceptions but not in src/" for path in PREFIXES
            if not (root / "src" / path).exists()]
    violations = check_self() or check(root) + gone
    for line in violations:
        print(line)
    print(f"{len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
