// The tab of a pod, the page of the fleet and the dashboard's card in Airflow's UI. Written by hand, without a build:
// Airflow's UI imports this file, puts React and its router on globalThis, and renders the component of a plug-in's name.

const { React, ReactRouterDOM } = globalThis;
const { useEffect, useState } = React;
const { Link, useSearchParams } = ReactRouterDOM;
const h = React.createElement;

const ROOT = new URL("crosswind/", document.baseURI);
const STYLES = new URL("static/crosswind.css" + new URL(import.meta.url).search, ROOT).href;
const PHASES = {
  waiting: "To be created", pending: "Pending in the cluster", running: "Running", ending: "Ending",
  adopting: "Being adopted",
};
const NO_REASON = { waiting: "their turn", pending: "to start", adopting: "to be adopted" };

if (!document.querySelector(`link[href="${STYLES}"]`)) {
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: STYLES }));
}

// --- what all parts use ----------------------------------------------------------------------------------------------

async function load(path, query, signal) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") url.searchParams.set(name, value);
  const answer = await fetch(url, { signal, headers: { Accept: "application/json" } });
  if (answer.ok) return answer.json();
  const detail = await answer.json().then((body) => body.detail).catch(() => "");
  throw new Error(answer.status === 401 ? "Your session has ended: sign in again." : detail || `The server answered ${answer.status}.`);
}

// Loads again every `every(data)` milliseconds while the page is visible; 0: not again.
function useData(path, query, every) {
  const [state, setState] = useState({ data: null, error: "" });
  const key = JSON.stringify([path, query]);
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const run = async () => {
      let pause = 10_000;
      try {
        if (!document.hidden) {
          const data = await load(path, query, stop.signal);
          setState({ data, error: "" });
          pause = every(data);
        }
      } catch (error) {
        if (stop.signal.aborted) return;
        setState((before) => ({ data: before.data, error: error.message }));
      }
      if (pause && !stop.signal.aborted) timer = setTimeout(run, pause);
    };
    run();
    return () => { stop.abort(); clearTimeout(timer); };
  }, [key]);
  return state;
}

function timezone() {
  const stored = localStorage.getItem("timezone") || "";
  const zone = stored.startsWith('"') ? JSON.parse(stored) : stored;
  try { new Intl.DateTimeFormat("en", { timeZone: zone || "UTC" }); return zone || "UTC"; } catch { return "UTC"; }
}

function clock(seconds) {
  const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return new Intl.DateTimeFormat("sv-SE", { ...parts, timeZone: timezone() }).format(new Date(seconds * 1000));
}

const number = (value) => value.toLocaleString("en-US");
const Dot = ({ tone }) => h("span", { className: `cw-dot cw-${tone}`, "aria-hidden": true });
const Note = ({ children }) => (children ? h("p", { className: "cw-note", role: "status" }, children) : null);
const Page = ({ children, narrow }) => h("div", { className: "cw cw-page" }, h("div", { className: narrow ? "cw-narrow" : "" }, children));

function Waiting({ error }) {
  return error ? h(Note, null, error) : h("p", { className: "cw-muted", role: "status" }, "Loading…");
}

function taskPath({ dag_id, run_id, task_id, map_index }) {
  const task = `/dags/${encodeURIComponent(dag_id)}/runs/${encodeURIComponent(run_id)}/tasks/${encodeURIComponent(task_id)}`;
  return map_index >= 0 ? `${task}/mapped/${map_index}` : task;
}

// --- the tab ---------------------------------------------------------------------------------------------------------

function PodTab({ dagId, runId, taskId, mapIndex }) {
  const query = { dag_id: dagId, run_id: runId, task_id: taskId, map_index: mapIndex };
  const { data, error } = useData("api/pod", query, (tab) => (tab.lives ? 3000 : 30_000));
  const [chosen, choose] = useState(null);
  const [search] = useSearchParams();
  if (!data) return h(Page, { narrow: true }, h(Waiting, { error }));
  const ofTry = Number(search.get("try_number")) || data.pods[0]?.try_number;
  const pod = data.pods.find((one) => keyOf(one) === chosen) || data.pods.find((one) => one.try_number === ofTry) || data.pods[0];
  const status = pod && pod !== data.pods[0] ? pod.status : data.status;
  return h(Page, { narrow: true },
    h(Note, null, error || data.stale),
    h(Status, { status, pod, name: data.pods.length > 1 ? nameOf(pod, data.pods) : "" }),
    data.pods.length > 1 && h(Tries, { pods: data.pods, pod, choose }),
    pod ? h(Life, { pod, task: data.task, events: data.events }) : data.events.length > 0 && h(Events, { reported: data.events, events: [] }),
    h(Manifest, { query }),
  );
}

const keyOf = (pod) => `${pod.try_number}/${pod.launch}/${pod.name}`;

function nameOf(pod, pods) {
  const launches = pods.some((one) => one.try_number === pod.try_number && one.launch);
  return `Try ${pod.try_number}` + (launches ? `, launch ${pod.launch + 1}` : "");
}

function Status({ status, pod, name }) {
  return h("section", { className: `cw-status cw-tone-${status.tone}`, "aria-label": "Status" },
    h("div", { className: "cw-row" }, h(Dot, { tone: status.tone }), h("strong", null, status.title),
      name && h("span", { className: "cw-badge" }, name), pod?.name && h("code", { className: "cw-muted" }, pod.name)),
    status.text && h("p", null, status.text));
}

function Tries({ pods, pod, choose }) {
  return h("div", { className: "cw-row cw-tries", role: "group", "aria-label": "Tries and launches" },
    pods.map((one) => h("button", { key: keyOf(one), type: "button", "aria-pressed": one === pod, title: one.status.title,
      onClick: () => choose(keyOf(one)) }, h(Dot, { tone: one.status.tone }), nameOf(one, pods),
      one.reason && h("span", { className: "cw-muted" }, one.reason))));
}

function Life({ pod, task, events }) {
  const shown = events.filter((event) => event.try === pod.try_number);
  const log = `${taskPath(task)}?try_number=${pod.try_number}`;
  return h(React.Fragment, null,
    pod.parts.length > 0 && h(Timeline, { parts: pod.parts }),
    h("h2", null, "Pod"),
    h(Facts, { pod }),
    pod.containers.length > 0 && h(Containers, { containers: pod.containers }),
    (shown.length > 0 || pod.events.length > 0) && h(Events, { reported: shown, events: pod.events }),
    h("p", { style: { marginTop: 16 } }, h(Link, { to: log }, `Log of try ${pod.try_number}`)));
}

function Timeline({ parts }) {
  const begun = parts[0].start;
  const total = Math.max(...parts.map((part) => part.start + part.seconds)) - begun;
  return h(React.Fragment, null,
    h("h2", null, "Timeline"),
    h("ol", { className: "cw-timeline" }, parts.map((part, index) => {
      const kind = (part.is_task ? " cw-is-task" : "") + (part.is_open ? " cw-is-open" : "");
      const place = { insetInlineStart: `${(100 * (part.start - begun)) / total}%`, width: `${(100 * part.seconds) / total}%` };
      return h("li", { key: index, className: part.is_largest ? "cw-largest" : "", title: `from ${clock(part.start)}` },
        h("span", null, part.label),
        h("span", { className: "cw-track", "aria-hidden": true }, h("span", { className: "cw-bar" + kind, style: place })),
        h("span", { className: "cw-right" }, part.is_largest && parts.length > 1 && h("span", { className: "cw-badge cw-strong" }, "largest"),
          " ", part.shown, part.is_open ? "…" : ""));
    })));
}

function Facts({ pod }) {
  const rows = [["Namespace", pod.namespace], ["Node", pod.node], ["Queue", pod.queue], ["Image", pod.image && h("code", null, pod.image)],
    ["Memory", pod.memory && h(Memory, { memory: pod.memory })], ["CPU", pod.cpu ? `${pod.cpu.toFixed(1)} s` : ""],
    ["Warm", pod.waited && `waited ${pod.waited} for this task`],
    ["Exit code", pod.exit_code === null ? "" : String(pod.exit_code)],
    ["Queued", pod.times.queued && clock(pod.times.queued)], ["Ended", pod.times.ended && clock(pod.times.ended)], ["Cluster", pod.cluster]];
  return h("dl", { className: "cw-facts" }, rows.filter(([, value]) => value).map(([name, value]) =>
    h(React.Fragment, { key: name }, h("dt", null, name), h("dd", null, value))));
}

function Memory({ memory }) {
  const { share, text } = memory;
  const bar = share !== null && h("span", { className: "cw-meter", "aria-hidden": true },
    h("span", { className: share >= 0.9 ? "cw-tight" : "", style: { width: `${Math.min(100, share * 100)}%` } }));
  return h(React.Fragment, null, bar, text);
}

const KINDS = { ordinary: "sidecar", native: "native sidecar", init: "init container" };

function Containers({ containers }) {
  return h(React.Fragment, null,
    h("h2", null, "Containers beside base"),
    h("table", null,
      h("thead", null, h("tr", null, ["Name", "Kind", "State", "Exit code"].map((name) => h("th", { key: name, scope: "col" }, name)))),
      h("tbody", null, containers.map((one) => h("tr", { key: one.name },
        h("td", null, one.name, " ", one.injected && h("span", { className: "cw-badge" }, "injected")),
        h("td", null, KINDS[one.kind] || one.kind), h("td", null, one.state), h("td", null, one.exit_code ?? ""))))));
}

function Events({ reported, events }) {
  const rows = [
    ...reported.map((one) => ({ at: one.at, what: one.event, text: one.text })),
    ...events.map((one) => ({ at: one.at, what: one.reason, text: one.message })),
  ].sort((one, other) => (one.at || 0) - (other.at || 0));
  return h(React.Fragment, null,
    h("h2", null, "Events"),
    h("table", null,
      h("thead", null, h("tr", null, ["Time", "Event", "Message"].map((name) => h("th", { key: name, scope: "col" }, name)))),
      h("tbody", null, rows.map((row, index) => h("tr", { key: index },
        h("td", { className: "cw-keep cw-muted" }, row.at ? clock(row.at) : ""),
        h("td", { className: "cw-keep" }, row.what), h("td", null, row.text))))));
}

function Manifest({ query }) {
  const [open, setOpen] = useState(false);
  return h("details", { onToggle: (event) => setOpen(event.currentTarget.open) },
    h("summary", null, "Manifest (YAML)"), open && h(ManifestLines, { query }));
}

function ManifestLines({ query }) {
  const { data, error } = useData("api/pod/manifest", query, () => 0);
  if (!data) return h(Waiting, { error });
  return h(React.Fragment, null,
    h("p", { className: "cw-muted" }, data.note),
    h("pre", { tabIndex: 0, "aria-label": "Manifest" }, data.lines.map(([line, injected], index) =>
      h(injected ? "mark" : "span", { key: index }, line + "\n"))));
}

// --- the fleet -------------------------------------------------------------------------------------------------------

const FILTERS = { phase: "phase", queue: "queue", namespace: "namespace", dag_id: "DAG", reason: "reason", search: "search" };
const PAGE = 50;

function FleetPage() {
  const [search, setSearch] = useSearchParams();
  const query = Object.fromEntries([...Object.keys(FILTERS), "sort", "offset"].map((name) => [name, search.get(name) || ""]));
  const { data, error } = useData("api/fleet", { ...query, limit: PAGE }, () => 5000);
  const change = (changes) => setSearch((before) => {
    const after = new URLSearchParams(before);
    if (!("offset" in changes)) after.delete("offset");
    for (const [name, value] of Object.entries(changes)) value ? after.set(name, value) : after.delete(name);
    return after;
  }, { replace: true });
  if (!data) return h(Page, null, h("h1", null, "Pods"), h(Waiting, { error }));
  return h(Page, null,
    h("div", { className: "cw-row cw-spread" }, h("h1", null, "Pods"),
      h("span", { className: "cw-muted" }, `${number(data.total)} in flight at ${clock(data.now)}`)),
    h(Note, null, error || data.stale),
    h(Tiles, { phases: data.phases, warm: data.warm, chosen: query.phase, change }),
    h("div", { className: "cw-panels" }, h(Waits, { waits: data.waits, change }), h(Failures, { failures: data.failures }),
      h(Executors, { executors: data.executors })),
    h("div", { className: "cw-panels" }, Object.entries({ queue: "By queue", namespace: "By namespace", dag_id: "By DAG" }).map(
      ([name, title]) => h(Breakdown, { key: name, name, title, rows: data.by[name], change }))),
    h(PodTable, { pods: data.pods, query, change }),
    data.fits.length > 0 && h(Fits, { fits: data.fits }));
}

function Tiles({ phases, warm, chosen, change }) {
  const pools = warm && warm.pools.map(({ pool, pods }) => `${pool}: ${number(pods)}`).join(", ");
  return h("div", { className: "cw-tiles" },
    phases.map(({ phase, pods }) => h("button", { key: phase, type: "button", className: "cw-tile", "aria-pressed": chosen === phase,
      onClick: () => change({ phase: chosen === phase ? "" : phase }) },
    h("strong", null, number(pods)), h("span", null, h("i", { className: `cw-dot cw-phase-${phase}` }), PHASES[phase]))),
    warm && h("div", { className: "cw-panel cw-tile", title: pools }, h("strong", null, number(warm.ready)),
      h("span", null, h("i", { className: "cw-dot cw-warm" }), "Warm", warm.starting ? `, ${number(warm.starting)} starting` : "")));
}

const Panel = ({ title, children, empty }) => h("section", { className: "cw-panel" }, h("h2", null, title),
  React.Children.count(children) ? h("ul", null, children) : h("p", { className: "cw-muted" }, empty));

function Waits({ waits, change }) {
  return h(Panel, { title: "What pods wait for, longest first", empty: "No pod waits." }, waits.map((wait) =>
    h("li", { key: wait.phase + wait.reason, className: "cw-line" },
      h("button", { type: "button", className: "cw-plain", onClick: () => change({ phase: wait.phase, reason: wait.reason }) },
        wait.reason || NO_REASON[wait.phase]),
      h("span", { className: "cw-right cw-muted" }, `${number(wait.pods)} · ${wait.shown}`))));
}

function Failures({ failures }) {
  return h(Panel, { title: "Failed or lost in the last 24 hours", empty: "No pod failed or was lost." }, failures.map((failure) =>
    h("li", { key: failure.reason, className: "cw-line" },
      h("span", null, failure.reason, " ", h(Link, { to: `/dags/${encodeURIComponent(failure.dag_id)}` }, failure.dag_id),
        failure.dags > 1 && h("span", { className: "cw-muted" }, ` and ${failure.dags - 1} other${failure.dags > 2 ? "s" : ""}`)),
      h("span", { className: "cw-right" }, number(failure.pods)))));
}

function Executors({ executors }) {
  return h(Panel, { title: "Schedulers", empty: "No scheduler reports." }, executors.map((one) =>
    h("li", { key: one.executor },
      h("div", { className: "cw-row" }, h(Dot, { tone: one.stale ? "failed" : one.watch_ok ? "success" : "waiting" }),
        h("span", null, `Executor ${one.executor}`),
        h("span", { className: "cw-muted" }, one.stale ? `silent for ${Math.round(one.age)} s` : "reports")),
      !one.stale && h("div", { className: "cw-muted" },
        `Watch: last event ${Math.round(one.watch_silence)} s ago. `,
        one.creation_pace !== null && `Creates ${one.creation_pace} pods at once. `,
        one.held_back > 0 && `${number(one.held_back)} tasks held back by max_pods. `,
        one.logs_to_keep > 0 && `${number(one.logs_to_keep)} logs to store.`))));
}

function Breakdown({ name, title, rows, change }) {
  const most = Math.max(1, ...rows.filter((row) => row.value !== null).map((row) => row.pods));
  return h(Panel, { title, empty: "No pods." }, rows.map((row) => h("li", { key: row.value ?? "others" },
    h("div", { className: "cw-line" },
      row.value === null ? h("span", { className: "cw-muted" }, `${row.others} others`)
        : h("button", { type: "button", className: "cw-plain", onClick: () => change({ [name]: row.value }) }, row.value || "(none)"),
      h("span", { className: "cw-right" }, number(row.pods))),
    row.value !== null && h("div", { className: "cw-shares", "aria-hidden": true }, Object.entries(row.phases).map(([phase, pods]) =>
      h("span", { key: phase, className: `cw-phase-${phase}`, style: { width: `${(100 * pods) / most}%` } }))))));
}

const COLUMNS = [["task", "Task"], ["phase", "Phase"], ["reason", "Waits for"], ["since", "For"], ["queue", "Queue"],
  ["namespace", "Namespace"], ["node", "Node"]];
const OPTIONAL = ["namespace", "node"];

function PodTable({ pods, query, change }) {
  const offset = Number(query.offset) || 0;
  const last = Math.min(offset + PAGE, pods.total);
  return h("section", { "aria-label": "Pods in flight" },
    h("div", { className: "cw-row cw-spread cw-filters" },
      h("div", { className: "cw-row" }, h("h2", null, "Pods in flight"), h(Chips, { query, change })),
      h(Search, { value: query.search, change })),
    h("div", { className: "cw-scroll" }, h("table", null,
      h("thead", null, h("tr", null, COLUMNS.map(([name, title]) => h(Heading, { key: name, name, title, query, change })))),
      h("tbody", null, pods.rows.map((pod) => h(PodRow, { key: pod.unique_id, pod }))))),
    pods.total === 0 && h("p", { className: "cw-muted", style: { padding: "8px 0" } }, "No pod matches."),
    pods.total > PAGE && h("div", { className: "cw-row", style: { marginTop: 8 } },
      h("button", { type: "button", disabled: offset === 0, onClick: () => change({ offset: String(Math.max(0, offset - PAGE)) }) }, "Previous"),
      h("button", { type: "button", disabled: last >= pods.total, onClick: () => change({ offset: String(offset + PAGE) }) }, "Next"),
      h("span", { className: "cw-muted" }, `${number(offset + 1)}–${number(last)} of ${number(pods.total)}`)));
}

function Heading({ name, title, query, change }) {
  const sort = query.sort;
  const chosen = sort.replace("-", "") === name;
  const descending = sort.startsWith("-");
  return h("th", { scope: "col", className: OPTIONAL.includes(name) ? "cw-optional" : "",
    "aria-sort": chosen ? (descending ? "descending" : "ascending") : undefined },
  h("button", { type: "button", onClick: () => change({ sort: chosen && !descending ? `-${name}` : name }) },
    title, chosen ? (descending ? " ↓" : " ↑") : ""));
}

function PodRow({ pod }) {
  const index = pod.map_index >= 0 ? `[${pod.map_index}]` : "";
  return h("tr", null,
    h("td", null, h(Link, { className: "cw-task", to: `${taskPath(pod)}/plugin/crosswind-pod` }, `${pod.dag_id}.${pod.task_id}${index}`),
      h("small", { className: "cw-muted" }, pod.run_id, pod.try_number > 1 ? `, try ${pod.try_number}` : "", pod.launch ? `, launch ${pod.launch + 1}` : "")),
    h("td", { className: "cw-keep" }, h("span", { className: "cw-row" }, h("i", { className: `cw-dot cw-phase-${pod.phase}` }), pod.phase)),
    h("td", null, pod.reason), h("td", { className: "cw-keep" }, pod.shown), h("td", null, pod.queue),
    h("td", { className: "cw-optional" }, pod.namespace), h("td", { className: "cw-optional" }, pod.node));
}

function Chips({ query, change }) {
  return Object.entries(FILTERS).filter(([name]) => query[name] && name !== "search").map(([name, label]) =>
    h("button", { key: name, type: "button", "aria-label": `Remove the filter ${label} ${query[name]}`, onClick: () => change({ [name]: "" }) },
      `${label}: ${query[name]} ×`));
}

function Search({ value, change }) {
  const [text, setText] = useState(value);
  useEffect(() => {
    if (text === value) return undefined;
    const timer = setTimeout(() => change({ search: text }), 300);
    return () => clearTimeout(timer);
  }, [text]);
  return h("input", { type: "search", value: text, placeholder: "Task, run or pod", "aria-label": "Search by task, run or pod",
    onChange: (event) => setText(event.target.value) });
}

function Fits({ fits }) {
  return h("section", { "aria-label": "Memory" },
    h("h2", null, "Memory that fits worst, of the last 24 hours"),
    h("div", { className: "cw-scroll" }, h("table", null,
      h("thead", null, h("tr", null, ["Task", "Peak", "Request", "Limit", "Pods", ""].map((name) => h("th", { key: name, scope: "col" }, name || "Verdict")))),
      h("tbody", null, fits.map((fit) => h("tr", { key: `${fit.dag_id}.${fit.task_id}` },
        h("td", null, h(Link, { to: `/dags/${encodeURIComponent(fit.dag_id)}/tasks/${encodeURIComponent(fit.task_id)}` },
          `${fit.dag_id}.${fit.task_id}`)), h("td", { className: "cw-keep" }, fit.peak), h("td", { className: "cw-keep" }, fit.request),
        h("td", { className: "cw-keep" }, fit.limit), h("td", null, number(fit.pods)),
        h("td", null, h("span", { className: "cw-row" }, h(Dot, { tone: fit.tight ? "failed" : "waiting" }), fit.text))))))));
}

// --- the dashboard's card --------------------------------------------------------------------------------------------

function FleetCard() {
  const { data, error } = useData("api/fleet/summary", {}, () => 10_000);
  if (!data) return error ? null : h("div", { className: "cw cw-card" }, h(Waiting, {}));
  const waits = data.waits.filter((wait) => wait.reason).map((wait) => `${number(wait.pods)} ${wait.reason} (${wait.shown})`).join(", ");
  return h("section", { className: "cw cw-card", "aria-label": "Pods" },
    h("div", { className: "cw-row cw-spread" }, h("h2", null, "Pods"), h(Link, { to: "/plugin/crosswind-pods" }, "All pods")),
    h(Note, null, error || data.stale),
    h("div", { className: "cw-figures" },
      data.phases.map(({ phase, pods }) => h("span", { key: phase }, h("i", { className: `cw-dot cw-phase-${phase}` }), `${number(pods)} ${phase}`)),
      h("span", null, h(Dot, { tone: data.failed ? "failed" : "success" }), `${number(data.failed)} failed or lost in 24 hours`)),
    waits && h("p", { className: "cw-muted" }, `Waiting longest: ${waits}`));
}

// Airflow renders the component of the plug-in's name: "Pod" and "Pods" are also what the tab and the menu show.
Object.assign(globalThis, { Pod: PodTab, Pods: FleetPage, "Crosswind pods": FleetCard });
