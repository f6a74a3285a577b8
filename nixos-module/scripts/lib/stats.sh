# shellcheck shell=bash
# Numbers about the store, the pins, the queue and the proxy of this machine.
# shellcheck source=nixos-module/scripts/lib/nix.sh
. "${BASH_SOURCE[0]%/*}/nix.sh"

# number NAME VALUE LABEL
number() {
  fact "$1" "${2:-null}"
  say "$(printf '%-24s %s' "$3" "${2:--}")"
}

count_store() {
  local dir count sizes
  dir=$(store_dir)
  if count=$(nix_tool path-info --all 2>/dev/null | wc -l); then
    number store_paths "$((count))" "paths in the store"
  fi
  read -r -a sizes <<<"$(df -Pk "$dir" |
    awk 'NR == 2 { printf "%.0f %.0f", $2 * 1024, $4 * 1024 }')"
  number disk_size_bytes "${sizes[0]-}" "the store's disk, bytes"
  number disk_free_bytes "${sizes[1]-}" "free of it"
}

count_roots() {
  local roots=${NIX_QUEUED_ROOTS_DIR:-$(state_dir)/gcroots/arm-cache}
  [[ -d $roots ]] || return 0
  number roots "$(($(find "$roots" -type l | wc -l)))" "pinned paths"
  number roots_dangling "$(($(find -L "$roots" -type l | wc -l)))" \
    "of these, gone"
}

count_queue() {
  has_queue || return 0
  local said code=0
  if [[ $json == yes ]]; then
    said=$(within 30 queuectl status --json 2>"$scratch/said") || code=$?
    if [[ $said == '{'* ]]; then fact queue "$said"; fi
  else
    within 30 queuectl status 2>"$scratch/said" || code=$?
  fi
  if ((code)); then
    bad queue "queuectl status failed: $(<"$scratch/said")" "queuectl check"
  fi
}

# count_proxy_disk DIRECTORY
count_proxy_disk() {
  [[ -n $1 ]] || return 0
  if [[ ! -d $1 ]]; then
    bad proxy "$1 is not there" "--proxy-dir is the proxy's cacheDir"
    return
  fi
  number proxy_files "$(($(find "$1" -type f | wc -l)))" "files of the proxy"
  number proxy_bytes "$(($(du -sk "$1" | cut -f 1) * 1024))" "their bytes"
}

# count_proxy_hits LOG: each line of it has X-Cache-Status=WORD. Without a
# name: the usual log, or else the journal.
count_proxy_hits() {
  local log=$1 counts
  if [[ -z $log && -r /var/log/nginx/access.log ]]; then
    log=/var/log/nginx/access.log
  fi
  if [[ -n $log && ! -r $log ]]; then
    bad proxy "$log cannot be read" "is it there, and are you root?"
    return
  elif [[ -n $log ]]; then
    cat -- "$log" >"$scratch/log"
  elif has journalctl; then
    within 30 journalctl -t nginx -n 100000 -o cat >"$scratch/log" \
      2>/dev/null || return 0
  else
    return 0
  fi
  read -r -a counts <<<"$(
    sed -n 's/.*X-Cache-Status=\([A-Z-]*\).*/\1/p' "$scratch/log" |
      sort | uniq -c | awk '
        { list = list (NR > 1 ? "," : "") "\"" $2 "\":" $1; all += $1
          if ($2 !~ /MISS|EXPIRED|BYPASS/) here += $1 }
        END { if (all) printf "{%s} %d %d", list, here, all }')"
  ((${#counts[@]})) || return 0
  fact proxy_answers "${counts[0]}"
  say "$(printf '%-24s %s of %s: %s' 'served without upstream' \
    "${counts[1]}" "${counts[2]}" "${counts[0]}")"
}
