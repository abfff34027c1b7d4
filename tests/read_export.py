#!/usr/bin/env python3
"""read_export.py llmc|megatron|npy DIR NAME SPLIT END TOKENIZER.json

Reads what `lockstep dataset export` wrote, with the checks that the format's own readers make (llm.c's dataloader.h,
Megatron-LM's indexed_dataset.py, numpy.load), and prints one JSON object a document: its text, and with npy how many of its
first tokens carry no loss. Standard library only; numpy reads the same files in tests/peers/dataset_peers.py.
"""
import ast, json, pathlib, struct, sys


def need(condition, message):
    if not condition:
        sys.exit(f"read_export: {message}")


def array(data, code, at=0, count=None):
    size = struct.calcsize("<" + code)
    count = (len(data) - at) // size if count is None else count
    need(at + count * size <= len(data), "the file is too short")
    return list(struct.unpack_from(f"<{count}{code}", data, at))


def llmc(folder, name, split, end):
    files = sorted(folder.glob(f"{name}_{split}_*.bin"))
    need(files, "Bad glob pattern: no files")
    stream = []
    for file in files:
        data = file.read_bytes()
        header = array(data, "i", 0, 256)
        need(header[0] in (20240520, 20240801), f"{file}: Bad magic in the data file")
        need(header[1] == {20240520: 1, 20240801: 7}[header[0]], f"{file}: Bad version in data file")
        code = "H" if header[1] == 1 else "I"
        need(len(data) == 256 * 4 + header[2] * struct.calcsize("<" + code), f"{file}: file size is not as expected")
        stream += array(data, code, 1024)
    need(stream[0] == end, "the stream does not begin with the end token")
    documents = [[]]
    for token in stream[1:]:
        if token == end:
            documents.append([])
        else:
            documents[-1].append(token)
    return [(d, None) for d in documents]


def megatron(folder, name, split, end):
    index = (folder / f"{name}_{split}.idx").read_bytes()
    tokens = (folder / f"{name}_{split}.bin").read_bytes()
    need(index[:9] == b"MMIDIDX\x00\x00", "bad header, cannot read")
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    need(version == 1, "bad version, cannot read")
    code = {4: "i", 8: "H"}[code]
    at = 34
    lengths = array(index, "i", at, sequences)
    pointers = array(index, "q", at + 4 * sequences, sequences)
    ends = array(index, "q", at + 12 * sequences, documents)
    need(at + 12 * sequences + 8 * documents == len(index), "bytes behind the index")
    need(sequences == len(lengths) and ends[0] == 0 and ends[-1] == sequences, "lengths and documents do not agree")
    need(pointers[-1] + lengths[-1] * struct.calcsize("<" + code) == len(tokens), "the .bin is longer or shorter than its index")
    result = []
    for a, b in zip(ends, ends[1:]):
        document = [t for i in range(a, b) for t in array(tokens, code, pointers[i], lengths[i])]
        need(document[-1] == end and end not in document[:-1], "a document does not end in the end token")
        result.append((document[:-1], None))
    return result


def npy_array(path):
    data = path.read_bytes()
    need(data[:8] == b"\x93NUMPY\x01\x00", f"{path}: not an .npy file of version 1.0")
    size = struct.unpack_from("<H", data, 8)[0]
    need((10 + size) % 64 == 0 and data[9 + size : 10 + size] == b"\n", f"{path}: the header is not aligned")
    head = ast.literal_eval(data[10 : 10 + size].decode("ascii"))
    need(set(head) == {"descr", "fortran_order", "shape"} and not head["fortran_order"], f"{path}: {head}")
    code = {"<u2": "H", "<u4": "I", "<u8": "Q", "|b1": "?"}[head["descr"]]
    values = array(data, code, 10 + size)
    need((len(values),) == head["shape"], f"{path}: {len(values)} values, shape {head['shape']}")
    return values


def npy(folder, name, split, end):
    stream = npy_array(folder / f"{name}_{split}.npy")
    ends = npy_array(folder / f"{name}_{split}_ends.npy")
    mask_path = folder / f"{name}_{split}_loss_mask.npy"
    mask = npy_array(mask_path) if mask_path.exists() else [True] * len(stream)
    need(len(mask) == len(stream) and stream[0] == end and ends[-1] == len(stream) - 1, "sizes do not agree")
    result, begin = [], 1
    for e in ends:
        need(stream[e] == end and mask[e], "an end is not an end token")
        without = mask[begin:e].index(True) if True in mask[begin:e] else e - begin
        need(all(mask[begin + without : e]), "a masked token behind the prompt")
        result.append((stream[begin:e], without))
        begin = e + 1
    return result


def token_bytes(path):
    """GPT-2's alphabet of bytes: printable ones stand for themselves, the others for 256, 257, ..."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(b): b for b in kept}
    alphabet.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in kept)})
    vocab = json.loads(pathlib.Path(path).read_text("utf-8"))["model"]["vocab"]
    return {i: bytes(alphabet.get(c, 63) for c in token) for token, i in vocab.items()}


def main():
    form, folder, name, split, end, tokenizer = sys.argv[1:]
    spell = token_bytes(tokenizer)
    for tokens, without in {"llmc": llmc, "megatron": megatron, "npy": npy}[form](pathlib.Path(folder), name, split, int(end)):
        line = {"text": b"".join(spell[t] for t in tokens).decode("utf-8"), "tokens": len(tokens)}
        if without is not None:
            line["without_loss"] = without
        print(json.dumps(line, ensure_ascii=False))


main()
