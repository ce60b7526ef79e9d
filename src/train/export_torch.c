#include "train/export_torch.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

bcop_status bcop_export_torch_check(const bcop_model *model) {
    for (int i = 0; i < model->count; i++)
        if (!model->layer[i].kind->torch)
            return bcop_status_fail(BCOP_BAD_DATA,
                                    "%s: layers of the kind %s cannot be exported to PyTorch",
                                    model->layer[i].name, model->layer[i].kind->name);
    return BCOP_OK;
}

/* Texts in double quotes are the same in JSON and in Python. */
static void put_text(FILE *out, const char *text) {
    json_t *value = json_string(text);
    if (value)
        json_dumpf(value, out, JSON_ENCODE_ANY);
    json_decref(value);
}

/* maxmin -> Maxmin */
static void put_class(FILE *out, const bcop_layer_kind *kind) {
    fputc(toupper((unsigned char)kind->name[0]), out);
    fputs(kind->name + 1, out);
}

/* Numbers as numbers, flags as flags, all else as texts. */
static void put_options(FILE *out, const bcop_layer *layer) {
    fputc('{', out);
    for (const bcop_option *o = layer->kind->options; o->key; o++) {
        char *value = NULL;
        size_t size;
        FILE *memory = open_memstream(&value, &size);
        if (!memory)
            continue;
        bcop_option_write_value(memory, o, layer->options);
        fclose(memory);
        fputs(o == layer->kind->options ? "" : ", ", out);
        put_text(out, o->key);
        fputs(": ", out);
        if (o->type == BCOP_OPTION_BOOL)
            fputs(strcmp(value, "true") == 0 ? "True" : "False", out);
        else if (o->type == BCOP_OPTION_INT || o->type == BCOP_OPTION_LONG ||
                 o->type == BCOP_OPTION_REAL)
            fputs(value, out);
        else
            put_text(out, value);
        free(value);
    }
    fputc('}', out);
}

static void put_head(const bcop_export_torch *e, FILE *out) {
    const bcop_shape in = e->model->in;
    fprintf(
        out,
        "\"\"\"%s: a network with a proven L2 Lipschitz bound, exported by bcop %s.\n"
        "%s\n\n"
        "This file needs PyTorch%s and the weights beside it, nothing of bcop:\n\n"
        "    network = load()           # a torch.nn.Module with the stored weights\n"
        "    logits = network(x)        # [N, %d] of x [N, %d, %d, %d], pixels in [0, 1]\n"
        "    network.radius(x)          # [N] no smaller change of an image changes its answer\n"
        "    network.certified(x, 0.5)  # [N] whether that is more than 0.5\n\n"
        "Radii are L2, in pixel units, and those of this forward pass: float32 rounds logits\n"
        "by about 1e-6, network.double() by about 1e-14.\n"
        "\"\"\"\n",
        e->name, BCOP_VERSION, e->origin, e->hdf5 ? ", h5py" : "", e->model->classes, in.channels,
        in.height, in.width);
    fputs(e->hdf5 ? "import os\n\nimport h5py\n" : "import json\nimport os\n\n", out);
    fputs("import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\nFILE = ", out);
    put_text(out, e->file);
}

static const char layer_class[] =
    "\n\n\n"
    "class Layer(nn.Module):\n"
    "    def __init__(self, tensors, name, options):\n"
    "        super().__init__()\n"
    "        self.options = options\n"
    "        self.register_parameter(\"bias\", None)\n"
    "        for key, value in tensors.items():\n"
    "            if key.startswith(name + \".\"):\n"
    "                self.register_parameter(key[len(name) + 1:], nn.Parameter(value))\n";

/* The class of a kind, unless an earlier layer is of it. */
static void put_kind(const bcop_model *m, int index, FILE *out) {
    const bcop_layer_kind *kind = m->layer[index].kind;
    for (int i = 0; i < index; i++)
        if (m->layer[i].kind == kind)
            return;
    fputs("\n\nclass ", out);
    put_class(out, kind);
    fprintf(out, "(Layer):\n    # %s\n    def forward(self, x):\n", kind->help);
    for (const char *line = kind->torch; *line;) {
        const size_t length = strcspn(line, "\n") + 1;
        fprintf(out, "        %.*s", (int)length, line);
        line += length;
    }
}

static void put_layers(const bcop_model *m, FILE *out) {
    for (int i = 0; i < m->count; i++) {
        fputs("            ", out);
        put_class(out, m->layer[i].kind);
        fprintf(out, "(tensors, \"layers.%s\", ", m->layer[i].name);
        put_options(out, &m->layer[i]);
        fputs("),\n", out);
    }
}

static const char network_head[] =
    "\n\n"
    "class Network(nn.Module):\n"
    "    def __init__(self, tensors, lipschitz):\n"
    "        super().__init__()\n"
    "        self.lipschitz = lipschitz  # proven upper bound of the whole network, in pixel units\n"
    "        # proven bounds of logit differences: |(z_i - z_j)(x) - (z_i - z_j)(x')| is at most\n"
    "        # pair[i][j] ||x - x'||\n"
    "        self.register_buffer(\"pair\", tensors[\"certificate.pair\"])\n"
    "        self.register_buffer(\"mean\", tensors[\"input.mean\"].view(-1, 1, 1))\n"
    "        self.register_buffer(\"inverse_std\", tensors[\"input.inverse_std\"].view(-1, 1, 1))\n"
    "        self.layers = nn.Sequential(\n";

static const char network_tail[] =
    "        )\n\n"
    "    def forward(self, x):\n"
    "        y = self.layers((x - self.mean) * self.inverse_std)\n"
    "        return y.permute(0, 2, 3, 1).flatten(1)\n\n"
    "    def radius(self, x):\n"
    "        logits = self(x)\n"
    "        answer = logits.argmax(dim=1, keepdim=True)\n"
    "        gaps = (logits.gather(1, answer) - logits).double()\n"
    "        radii = gaps / self.pair.double()[answer.squeeze(1)]\n"
    "        return radii.scatter(1, answer, float(\"inf\")).amin(dim=1)\n\n"
    "    def certified(self, x, eps):\n"
    "        return self.radius(x) > eps\n";

static const char read_safetensors[] =
    "\n\n"
    "def read(path):\n"
    "    \"\"\"The arrays of a safetensors file, and what it says of itself.\"\"\"\n"
    "    types = {\"F32\": torch.float32, \"F64\": torch.float64}\n"
    "    with open(path, \"rb\") as file:\n"
    "        header = json.loads(file.read(int.from_bytes(file.read(8), \"little\")))\n"
    "        data = bytearray(file.read())\n"
    "    about, tensors = header.pop(\"__metadata__\"), {}\n"
    "    for name, entry in header.items():\n"
    "        begin, end = entry[\"data_offsets\"]\n"
    "        array = torch.frombuffer(data[begin:end], dtype=types[entry[\"dtype\"]])\n"
    "        tensors[name] = array.reshape(entry[\"shape\"])\n"
    "    return tensors, about\n";

static const char read_hdf5[] =
    "\n\n"
    "def read(path):\n"
    "    \"\"\"The arrays of an HDF5 file, and what it says of itself.\"\"\"\n"
    "    tensors = {}\n\n"
    "    def take(name, item):\n"
    "        if isinstance(item, h5py.Dataset):\n"
    "            tensors[name.replace(\"/\", \".\")] = torch.from_numpy(item[()])\n\n"
    "    with h5py.File(path, \"r\") as file:\n"
    "        file.visititems(take)\n"
    "        about = {key: value.decode() if isinstance(value, bytes) else value\n"
    "                 for key, value in file.attrs.items()}\n"
    "    return tensors, about\n";

static const char load_function[] =
    "\n\n"
    "def load(path=os.path.join(os.path.dirname(os.path.abspath(__file__)), FILE)):\n"
    "    \"\"\"The network with the weights of the file.\"\"\"\n"
    "    tensors, about = read(path)\n"
    "    if about.get(\"format\") != \"bcop-export\" or int(about[\"version\"]) != 1:\n"
    "        raise ValueError(f\"{path}: not an exported network that this file can read\")\n"
    "    return Network(tensors, float(about[\"lipschitz\"])).eval()\n";

void bcop_export_torch_write(const bcop_export_torch *e, FILE *out) {
    put_head(e, out);
    fputs(layer_class, out);
    for (int i = 0; i < e->model->count; i++)
        put_kind(e->model, i, out);
    fputs(network_head, out);
    put_layers(e->model, out);
    fputs(network_tail, out);
    fputs(e->hdf5 ? read_hdf5 : read_safetensors, out);
    fputs(load_function, out);
}
