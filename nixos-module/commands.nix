# The commands of scripts/ as a package, for machines where no module puts
# them on the PATH. They use the programs that they find there.
{ runCommand }:
runCommand "nix-queued-commands"
  {
    meta = {
      description = "Look at Nix caches and builders, and say what is wrong";
      mainProgram = "cache-status";
    };
  }
  ''
    mkdir -p $out/bin $out/share
    cp -r ${./scripts} $out/share/nix-queued-commands
    chmod -R u+w $out/share/nix-queued-commands
    patchShebangs $out/share/nix-queued-commands
    cd $out/share/nix-queued-commands
    for command in *; do
      [ ! -x "$command" ] || [ -d "$command" ] ||
        ln -s ../share/nix-queued-commands/"$command" $out/bin/"$command"
    done
  ''
