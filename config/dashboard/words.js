// Numbers as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let value = count, unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export function percent(ratio) {
  if (ratio === null) return "–";
  // 99.96 % is not all of it.
  const shown = Math.min(Math.round(ratio * 1000) / 10, ratio < 1 ? 99.9 : 100);
  return `${shown} %`;
}

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  const days = seconds / 86400;
  return `${days < 10 ? Math.round(days * 10) / 10 : Math.round(days)} days`;
}

export function many(count, one, more) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

export function moment(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function weekday(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleDateString("en-GB", { weekday: "short", timeZone: "UTC" });
}

export function date(unixSeconds) {
  return new Date(unixSeconds * 1000).toISOString().slice(0, 10);
}
