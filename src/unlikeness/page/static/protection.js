// A picture protected by the network: reduced to the size that a trainer sees, cut into tiles, enlarged again.
//
// The arithmetic is that of `unlikeness protect` with `--at fit` (protect/tiling/*.py); a test compares the two.
// A picture here is {width, height, channels, colours, top, data}: integers from 0 to top, row by row, colours (1 or 3)
// first and then alpha, as in the file.

const DETAIL = 2; // short side of the small copy, in resolutions of the network
const LONGEST = 24; // its long side, in short sides
const OVERLAP = 0.125; // of a tile

/** The tiles along `length` pixels; the middle one lies in the centre. */
export function axisOf(length, tile) {
  const ramp = Math.trunc(OVERLAP * tile);
  if (length <= tile) return { length, tile, ramp, starts: [0], centre: 0 };
  const middle = Math.floor((length - tile) / 2);
  const last = length - tile;
  const stride = tile - ramp;
  const left = Math.ceil(middle / stride);
  const right = Math.ceil((last - middle) / stride);
  const starts = [];
  for (let k = left; k > 0; k--) starts.push(Math.max(middle - k * stride, 0));
  for (let k = 0; k <= right; k++) starts.push(Math.min(middle + k * stride, last));
  return { length, tile, ramp, starts, centre: left };
}

/** The weight of tile `index` at each of its pixels; the weights of all tiles add up to 1 everywhere. */
function windowOf(axis, index) {
  const { starts, tile, ramp, centre, length } = axis;
  const rise = (i, x) => {
    if (i < 0) return 1;
    if (i >= starts.length - 1) return 0;
    const begin = i < centre ? starts[i + 1] : starts[i] + tile - ramp;
    const along = Math.min(Math.max((x - begin) / Math.max(ramp, 1e-6), 0), 1);
    return 0.5 - 0.5 * Math.cos(Math.PI * along);
  };
  const stop = Math.min(starts[index] + tile, length);
  return Float32Array.from({ length: stop - starts[index] }, (_, i) => {
    const x = starts[index] + i + 0.5;
    return rise(index - 1, x) - rise(index, x);
  });
}

/** Half to even, as Python rounds. */
function round(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + (floor % 2) : Math.round(x);
}

/** The small copy's size and its tiles, for an upright picture of this size. */
export function gridOf(width, height, resolution) {
  const side = DETAIL * resolution;
  const factor = Math.min(1, side / Math.min(width, height), (LONGEST * side) / Math.max(width, height));
  const w = Math.max(round(width * factor), 1);
  const h = Math.max(round(height * factor), 1);
  const tile = Math.max(Math.min(w, h), Math.ceil(Math.max(w, h) / LONGEST));
  return { width: w, height: h, tile, rows: axisOf(h, tile), columns: axisOf(w, tile) };
}

/** For each place of the smaller axis the first pixel of the larger one and the triangle filter's weights. */
function shares(length, to) {
  const ratio = length / to;
  return Array.from({ length: to }, (_, place) => {
    const first = Math.max(Math.floor((place - 0.5) * ratio), 0);
    const last = Math.min(Math.ceil((place + 1.5) * ratio), length);
    const weights = Float32Array.from({ length: last - first }, (_, i) =>
      Math.max(1 - Math.abs(place + 0.5 - (first + i + 0.5) / ratio), 0));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((one) => one / sum) };
  });
}

/** The picture's colours at a smaller size, [h, w, 3] in [0, 1]. */
function shrink(picture, w, h) {
  const { width, height, channels, colours, top, data } = picture;
  const green = colours === 3 ? 1 : 0;
  const small = new Float32Array(w * h * 3);
  const across = shares(width, w);
  const down = shares(height, h);
  const line = new Float32Array(w * 3);
  let open = 0; // the first row of the small copy that further rows still add to
  for (let y = 0; y < height; y++) {
    const row = y * width * channels;
    for (let x = 0; x < w; x++) {
      const { first, weights } = across[x];
      let r = 0, g = 0, b = 0;
      for (let k = 0, at = row + first * channels; k < weights.length; k++, at += channels) {
        r += weights[k] * data[at];
        g += weights[k] * data[at + green];
        b += weights[k] * data[at + 2 * green];
      }
      line[3 * x] = r / top;
      line[3 * x + 1] = g / top;
      line[3 * x + 2] = b / top;
    }
    while (open < h && down[open].first + down[open].weights.length <= y) open++;
    for (let j = open; j < h && down[j].first <= y; j++) {
      const share = down[j].weights[y - down[j].first];
      for (let i = 0, at = j * w * 3; share && i < line.length; i++, at++) small[at] += share * line[i];
    }
  }
  return small.map((one) => Math.min(Math.max(one, 0), 1));
}

/** A tile as the planes [3, side, side], mirrored at its lower and right border where the picture ends. */
function planesOf(small, grid, y0, x0) {
  const side = grid.tile;
  const planes = new Float32Array(3 * side * side);
  const mirrored = (i, n) => (i % (2 * n) < n ? i % (2 * n) : 2 * n - 1 - (i % (2 * n)));
  const rows = Math.min(side, grid.height - y0);
  const columns = Math.min(side, grid.width - x0);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const from = ((y0 + mirrored(y, rows)) * grid.width + x0 + mirrored(x, columns)) * 3;
      for (let c = 0; c < 3; c++) planes[(c * side + y) * side + x] = small[from + c];
    }
  }
  return planes;
}

/** Add a tile's perturbation, cross-faded, to that of the small copy. */
function blend(total, grid, row, column, planes, delta, grey) {
  const side = grid.tile;
  const down = windowOf(grid.rows, row);
  const across = windowOf(grid.columns, column);
  const changes = new Float32Array(3);
  for (let y = 0; y < down.length; y++) {
    for (let x = 0; x < across.length; x++) {
      for (let c = 0; c < 3; c++) {
        const at = (c * side + y) * side + x;
        changes[c] = Math.min(Math.max(planes[at] + delta[at], 0), 1) - planes[at];
      }
      if (grey) { // one value a pixel: the sign of the mean, and the mean strength
        const sum = changes[0] + changes[1] + changes[2];
        changes.fill((Math.sign(sum) * (Math.abs(changes[0]) + Math.abs(changes[1]) + Math.abs(changes[2]))) / 3);
      }
      const to = ((grid.rows.starts[row] + y) * grid.width + grid.columns.starts[column] + x) * 3;
      for (let c = 0; c < 3; c++) total[to + c] += down[y] * across[x] * changes[c];
    }
  }
}

/** Four neighbours and their weights for each of `to` points among `from`: Keys' cubic convolution, a = -0.5. */
function taps(from, to) {
  const places = new Int32Array(4 * to);
  const weights = new Float32Array(4 * to);
  for (let i = 0; i < to; i++) {
    const at = ((i + 0.5) * from) / to - 0.5;
    for (let k = 0; k < 4; k++) {
      const place = Math.floor(at) - 1 + k;
      const d = Math.abs(at - place);
      weights[4 * i + k] = d <= 1 ? 1.5 * d ** 3 - 2.5 * d ** 2 + 1
        : d < 2 ? -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2 : 0;
      places[4 * i + k] = Math.min(Math.max(place, 0), from - 1);
    }
  }
  return { places, weights };
}

/** A copy of the picture's data with the enlarged perturbation, no value farther from it than the budget. */
function applied(picture, total, grid, budget) {
  const { width, height, channels, colours, top, data } = picture;
  const result = data.slice();
  const down = taps(grid.height, height);
  const across = taps(grid.width, width);
  const line = new Float32Array(grid.width * 3);
  const bound = budget / 255;
  const limit = Math.floor((budget * (1 + 1e-5) * top) / 255);
  for (let y = 0; y < height; y++) {
    line.fill(0);
    for (let k = 0; k < 4; k++) {
      const weight = down.weights[4 * y + k];
      const from = down.places[4 * y + k] * line.length;
      for (let i = 0; i < line.length; i++) line[i] += weight * total[from + i];
    }
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * channels;
      for (let c = 0; c < colours; c++) {
        let change = 0;
        for (let k = 4 * x; k < 4 * x + 4; k++) change += across.weights[k] * line[3 * across.places[k] + c];
        const old = data[at + c];
        const moved = Math.min(Math.max(old / top + Math.min(Math.max(change, -bound), bound), 0), 1);
        const step = Math.min(Math.max(Math.round(moved * top - old), -limit), limit);
        result[at + c] = Math.min(Math.max(old + step, 0), top);
      }
    }
  }
  return result;
}

/**
 * The picture protected: {picture, total, grid}. total: the small copy's perturbation, [h, w, 3] in [0, 1] units.
 *
 * run: (planes [3, side, side] in [0, 1], side, budget in n/255) -> a promise of the perturbation, of the same shape.
 * psnr: the whole change is weakened until it reaches so many dB; null: only the budget bounds it.
 * onTile: called after each tile.
 */
export async function protect(picture, { run, resolution, budget, psnr, onTile }) {
  const grid = gridOf(picture.width, picture.height, resolution);
  const total = new Float32Array(grid.width * grid.height * 3);
  const small = shrink(picture, grid.width, grid.height);
  for (let i = 0; i < grid.rows.starts.length; i++) {
    for (let j = 0; j < grid.columns.starts.length; j++) {
      const planes = planesOf(small, grid, grid.rows.starts[i], grid.columns.starts[j]);
      const delta = await run(planes, grid.tile, budget);
      if (!delta.every(Number.isFinite)) throw new Error("notFinite");
      blend(total, grid, i, j, planes, delta, picture.colours === 1);
      onTile();
    }
  }
  if (psnr !== null) {
    let squares = 0;
    for (const one of total) squares += one * one;
    const rms = Math.sqrt(squares / total.length);
    const factor = rms ? Math.min(1, 10 ** (-psnr / 20) / rms) : 1;
    for (let i = 0; i < total.length; i++) total[i] *= factor;
  }
  return { picture: { ...picture, data: applied(picture, total, grid, budget) }, total, grid };
}

/** The picture turned upright, by the number of its EXIF orientation; `back` turns it as it was. */
export function turned(picture, orientation, back = false) {
  if (orientation === 1) return picture;
  const across = orientation >= 5; // a quarter turn
  const { width: w, height: h, channels, data } = picture;
  const [width, height] = across ? [h, w] : [w, h];
  const result = new data.constructor(data.length);
  // The place in the file of each upright pixel: swap the axes first, then mirror them.
  const [mirrorX, mirrorY] = {
    2: [1, 0], 3: [1, 1], 4: [0, 1], 5: [0, 0], 6: [0, 1], 7: [1, 1], 8: [1, 0],
  }[orientation];
  const [fileW, fileH] = back ? [width, height] : [w, h];
  for (let y = 0; y < (back ? h : height); y++) {
    for (let x = 0; x < (back ? w : width); x++) {
      let [fx, fy] = across ? [y, x] : [x, y];
      if (mirrorX) fx = fileW - 1 - fx;
      if (mirrorY) fy = fileH - 1 - fy;
      const up = (y * (back ? w : width) + x) * channels;
      const file = (fy * fileW + fx) * channels;
      const [to, from] = back ? [file, up] : [up, file];
      for (let c = 0; c < channels; c++) result[to + c] = data[from + c];
    }
  }
  return { ...picture, width, height, data: result };
}
