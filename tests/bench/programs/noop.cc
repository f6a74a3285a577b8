// The cheapest program there is: what starting and ending one costs.
int main() { return 0; }
