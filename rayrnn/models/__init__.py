"""Networks: torch modules of plain arguments and tensors.

No torch is imported here: a recipe asks for the cells' names.
"""

#: a recurrent layer by its name -> what makes one of (input_size, hidden_size)
CELLS = {
    "rnn": "rayrnn.models.cells:rnn",
    "lstm": "rayrnn.models.cells:lstm",
    "gru": "rayrnn.models.cells:gru",
    "graves_lstm": "rayrnn.models.graves_lstm:GravesLSTM",
}
