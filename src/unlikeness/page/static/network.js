// The network, run by ONNX Runtime: on the graphics card through WebGPU where there is one, else on the processor.

const FOLDER = new URL("onnxruntime/", import.meta.url).href;
const BINARIES = { wasm: "ort-wasm-simd-threaded.wasm", webgpu: "ort-wasm-simd-threaded.asyncify.wasm" };

/** {device, run}: run takes (planes [3, side, side] in [0, 1], side, budget in n/255) and gives the perturbation. */
export async function open(url) {
  const weights = new Uint8Array(await (await fetched(url)).arrayBuffer());
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  // WebGPU that the processor imitates is many times slower than WebAssembly.
  const imitated = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
  const wanted = adapter && !imitated ? ["webgpu", "wasm"] : ["wasm"];
  for (const device of wanted) {
    try {
      return await session(device, weights);
    } catch (error) {
      if (device === wanted.at(-1)) throw error;
      console.warn("WebGPU cannot be used:", error);
    }
  }
}

async function session(device, weights) {
  const ort = await import(`${FOLDER}ort.${device}.bundle.min.mjs`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = { wasm: FOLDER + BINARIES[device] };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  const created = await ort.InferenceSession.create(weights, {
    executionProviders: [device], graphOptimizationLevel: "all", enableMemPattern: false,
  });
  const run = async (planes, side, budget) => {
    const images = new ort.Tensor("float32", planes, [1, 3, side, side]);
    const plane = new ort.Tensor("float32", new Float32Array(side * side).fill(budget), [1, 1, side, side]);
    const { delta } = await created.run({ images, budget: plane });
    const data = await delta.getData();
    for (const tensor of [images, plane, delta]) tensor.dispose();
    return data;
  };
  await run(new Float32Array(3 * 32 * 32).fill(0.5), 32, 8); // a device that cannot compute fails here
  return { device, run };
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer;
}
