// PNG files of one channel, written and read without a canvas: a canvas knows RGBA only, and would
// blend and convert what are ids. No DOM (CompressionStream and DecompressionStream do the deflate).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

/** CRC-32 of bytes, as PNG and zip have it. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

async function through(bytes, stream) {
  const blob = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(blob).arrayBuffer());
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** A greyscale PNG of whole numbers: 8 bits each where all fit, else 16. Returns bytes. */
export async function encodeGrey(width, height, values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  const bytes = most > 255 ? 2 : 1;
  const stride = width * bytes + 1;
  const raw = new Uint8Array(stride * height); // filter 0 before each row
  for (let y = 0, i = 0; y < height; y++) {
    let at = y * stride + 1;
    if (bytes === 1) {
      for (let x = 0; x < width; x++) raw[at++] = values[i++];
    } else {
      for (let x = 0; x < width; x++, i++) {
        raw[at++] = values[i] >> 8;
        raw[at++] = values[i] & 255;
      }
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8 * bytes;
  const data = await through(raw, new CompressionStream("deflate"));
  const parts = [chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Uint8Array(await new Blob([new Uint8Array(SIGNATURE), ...parts]).arrayBuffer());
}

function paeth(a, b, c) {
  const p = a + b - c;
  const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  if (pa <= pb && pa <= pc) return a;
  return pb <= pc ? b : c;
}

function unfilter(raw, rows, stride, step) {
  const out = new Uint8Array(rows * stride);
  for (let y = 0; y < rows; y++) {
    const filter = raw[y * (stride + 1)];
    const at = y * stride;
    for (let i = 0; i < stride; i++) {
      const left = i >= step ? out[at + i - step] : 0;
      const up = y ? out[at + i - stride] : 0;
      const corner = y && i >= step ? out[at + i - stride - step] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      if (guess === undefined) throw new Error("not a PNG file: a row of an unknown filter");
      out[at + i] = raw[y * (stride + 1) + 1 + i] + guess;
    }
  }
  return out;
}

/**
 * Ids of a PNG file of one channel (grey or palette indices, 1 to 16 bits).
 * Returns {width, height, ids: Uint16Array}; throws an Error of one line for any other file.
 */
export async function decodeIds(bytes) {
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) throw new Error("not a PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let head = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (name === "IHDR") {
      head = { width: view.getUint32(at + 8), height: view.getUint32(at + 12), depth: body[8],
        type: body[9], interlaced: body[12] };
    } else if (name === "IDAT") data.push(body);
    else if (name === "IEND") break;
    at += 12 + length;
  }
  if (!head || !data.length) throw new Error("not a whole PNG file");
  const { width, height, depth, type, interlaced } = head;
  if (CHANNELS[type] !== 1) throw new Error("a mask needs one channel of class ids; this PNG has colours");
  if (interlaced) throw new Error("an interlaced PNG: store it without interlacing");
  if (width > 4096 || height > 4096) throw new Error(`${width}x${height}: at most 4096x4096`);
  const packed = new Uint8Array(await new Blob(data).arrayBuffer());
  const stride = Math.ceil((width * depth) / 8);
  const raw = await through(packed, new DecompressionStream("deflate"));
  if (raw.length < (stride + 1) * height) throw new Error("not a whole PNG file");
  const rows = unfilter(raw, height, stride, Math.max(1, depth / 8));
  const ids = new Uint16Array(width * height);
  const mask = (1 << depth) - 1;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const at = y * stride;
      if (depth === 8) ids[i] = rows[at + x];
      else if (depth === 16) ids[i] = (rows[at + 2 * x] << 8) | rows[at + 2 * x + 1];
      else ids[i] = (rows[at + ((x * depth) >> 3)] >> (8 - depth - ((x * depth) & 7))) & mask;
    }
  }
  return { width, height, ids };
}
