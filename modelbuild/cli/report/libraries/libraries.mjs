// Only what report.js uses; esbuild leaves the rest out.
import { areaY, dot, lineY, plot, pointer, ruleY, tip } from "@observablehq/plot";
import { Graph, layout } from "@dagrejs/dagre";

globalThis.libraries = { Graph, areaY, dot, layout, lineY, plot, pointer, ruleY, tip };
